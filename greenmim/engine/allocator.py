# Copyright (c) greenmim authors. All rights reserved.
"""PyTorch's allocator of GPU memory."""
import os
import sys

import torch

VARIABLES = ('PYTORCH_ALLOC_CONF', 'PYTORCH_CUDA_ALLOC_CONF',
             'PYTORCH_HIP_ALLOC_CONF')


def grow_segments() -> None:
    """Let the allocator grow its segments, unless the user has set it up.

    Where the groups of attention follow the mask, the largest tensors of a
    step differ by some per cent from those of the step before, and do not fit
    into what these have left. Segments that grow take tensors of any size one
    after another. This is what PyTorch advises for changing sizes; the memory
    that it saves here is not measured.

    The allocator reads the variable at its first allocation on a GPU. There
    is no other effect, in particular none on a CPU.
    """
    if (sys.platform == 'linux' and torch.version.cuda
            and not any(name in os.environ for name in VARIABLES)):
        # The name that all versions read.
        os.environ['PYTORCH_CUDA_ALLOC_CONF'] = 'expandable_segments:True'
