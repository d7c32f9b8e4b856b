# Copyright (c) greenmim authors. All rights reserved.
"""Training in bfloat16 on any device, CPUs included."""
from contextlib import contextmanager
from typing import Iterator

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from greenmim.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Compute the forward and backward pass in bfloat16 by autocast.

    MMEngine's ``AmpOptimWrapper`` refuses to run without a GPU, but CPUs with
    bfloat16 instructions (AVX-512 BF16, AMX) gain from it as well. Weights,
    gradients and the state of the optimizer stay float32, and bfloat16 has
    the range of float32, so that the loss is not scaled.
    """

    # As in ``AmpOptimWrapper``.
    cast_dtype = torch.bfloat16

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the model in bfloat16, as MMEngine runs it otherwise."""
        device = get_device()
        with super().optim_context(model), \
                torch.autocast(device, torch.bfloat16):
            yield
