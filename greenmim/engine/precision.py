# Copyright (c) greenmim authors. All rights reserved.
"""The precision of a run's arithmetic, raised while it trains."""
from types import MethodType
from typing import Optional

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper

ORDER = (torch.float16, torch.bfloat16, torch.float32)
"""From low to high: the second has the range of the third."""


def precision_of(wrapper: OptimWrapper) -> torch.dtype:
    """What a training step computes in, by MMEngine's ``AmpOptimWrapper``."""
    dtype = getattr(wrapper, 'cast_dtype', torch.float32)
    return torch.get_autocast_dtype(get_device()) if dtype is None else dtype


def next_precision(wrapper: OptimWrapper) -> Optional[torch.dtype]:
    """The next higher precision that the device has; None above float32."""
    dtype = precision_of(wrapper)
    if dtype not in ORDER[:2]:
        return None
    if dtype is torch.float16 and (get_device() != 'cuda'
                                   or torch.cuda.is_bf16_supported(False)):
        return torch.bfloat16
    return torch.float32


def set_precision(wrapper: OptimWrapper, dtype: torch.dtype) -> None:
    """Let an ``AmpOptimWrapper`` compute in bfloat16 or float32 from now on.

    Weights, gradients and the state of the optimizer are float32 in any case.
    Both precisions have the range of float32, so that the loss is no longer
    scaled.
    """
    wrapper.cast_dtype = dtype
    wrapper.loss_scaler = torch.amp.GradScaler(enabled=False)
    if dtype is torch.float32:  # autocast would refuse it
        wrapper.optim_context = MethodType(OptimWrapper.optim_context, wrapper)
