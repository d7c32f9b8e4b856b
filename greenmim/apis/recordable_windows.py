# Copyright (c) greenmim authors. All rights reserved.
"""The shifted windows of Swin for images of any number and any size."""
import copy
from typing import Any, Tuple

import torch
import torch.nn.functional as F
from mmpretrain.models.utils import ShiftWindowMSA
from torch import Tensor, nn


class RecordableWindows(nn.Module):
    """Computes what a ``ShiftWindowMSA`` does, by operations on tensors.

    MMPretrain's counts the images, chooses the shift and fills its mask in
    Python, of which a recorded program keeps the results.

    Args:
        dense (ShiftWindowMSA): The module in whose place this is.
    """

    def __init__(self, dense: ShiftWindowMSA) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, query: Tensor, hw_shape: Tuple[Any, Any]) -> Tensor:
        """See ``ShiftWindowMSA.forward``: (B, H * W, C), and H and W."""
        batch, _, channels = query.shape
        # Tensors while the program is recorded, which their types cannot say.
        height: Any = torch.as_tensor(hw_shape[0])
        width: Any = torch.as_tensor(hw_shape[1])
        side = self.dense.window_size
        x = query.view(batch, height, width, channels)
        shorter = torch.minimum(height, width)
        fitting = self._fitting(shorter)
        x = F.pad(x, (0, 0, 0, (fitting - width % side) % side, 0,
                      (fitting - height % side) % side))
        padded = x.shape[1:3]
        rows, cols = (torch.arange(n, device=x.device) for n in padded)
        shift, mask = self.dense.shift_size, None
        if self.dense.shift_size:
            if not self.dense.pad_small_map:  # a map of one window is not
                shift = shift * (shorter > side).long()
            x = x.index_select(1, (rows + shift) % padded[0])
            x = x.index_select(2, (cols + shift) % padded[1])
            # What the shift brings together, and was not, is masked.
            row, col = ((at >= end - side).long() + (at >= end - shift).long()
                        for at, end in zip((rows, cols), padded))
            names = 3 * row[:, None] + col
            names = self._windows(names[None, :, :, None]).squeeze(2)
            differs = names[:, None, :] != names[:, :, None]
            mask = differs.to(x.dtype) * -100
        windows = self.dense.w_msa(self._windows(x), mask=mask)
        x = windows.view(-1, padded[0] // side, padded[1] // side, side, side,
                         channels)
        x = x.transpose(2, 3).reshape(-1, *padded, channels)
        if self.dense.shift_size:
            x = x.index_select(1, (rows + padded[0] - shift) % padded[0])
            x = x.index_select(2, (cols + padded[1] - shift) % padded[1])
        x = x[:, :height, :width].reshape(batch, height * width, channels)
        return self.dense.drop(x)

    def _windows(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B * number of windows, side * side, C)."""
        side = self.dense.window_size
        batch, height, width, channels = x.shape
        x = x.view(batch, height // side, side, width // side, side, channels)
        return x.transpose(2, 3).reshape(-1, side * side, channels)

    def _fitting(self, shorter: Any) -> Tensor:
        """The side of a window; fails where the map is smaller than it."""
        side = self.dense.window_size
        if self.dense.pad_small_map:
            return torch.as_tensor(side)
        return torch.arange(shorter)[:side].reshape(side)[-1] + 1


def with_recordable_windows(backbone: nn.Module) -> nn.Module:
    """A copy of a backbone with :class:`RecordableWindows`.

    Args:
        backbone (nn.Module): The backbone, with or without windows.
    """
    backbone = copy.deepcopy(backbone)
    for module in list(backbone.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ShiftWindowMSA):
                setattr(module, name, RecordableWindows(child))
    return backbone
