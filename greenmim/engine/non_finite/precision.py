# Copyright (c) greenmim authors. All rights reserved.
"""The precision in which a run computes, and the next higher one."""
from typing import Optional

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper

ORDER = (torch.float16, torch.bfloat16, torch.float32)
"""From low to high. The second has the range of the third."""


def precision_of(wrapper: OptimWrapper) -> torch.dtype:
    """The data type in which a training step computes."""
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
