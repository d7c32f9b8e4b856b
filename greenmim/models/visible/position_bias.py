# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Dict

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from greenmim.ops.mask_unit import Grid


class PositionBias(BaseModule):
    """A learned bias for each pair of a query and a sub-sampled key (CMT).

    On a map of another size it is interpolated, over the queries' positions
    and over the keys', and a checkpoint's of another size on loading.

    Args:
        num_heads (int): Attention heads.
        hw_shape (tuple[int, int]): Height and width of the map.
        sr_ratio (int): Sub-sampling of the keys.
    """

    def __init__(self, num_heads: int, hw_shape: Grid, sr_ratio: int) -> None:
        super().__init__()
        self.hw_shape = hw_shape
        self.sr_ratio = sr_ratio
        queries, keys = hw_shape[0] * hw_shape[1], self._keys(hw_shape)
        self.bias = nn.Parameter(
            torch.zeros(num_heads, queries, keys[0] * keys[1]))
        self._register_load_state_dict_pre_hook(self._resize_on_loading)

    def init_weights(self) -> None:
        """Draw the biases."""
        super().init_weights()
        nn.init.trunc_normal_(self.bias, std=.02)

    def _keys(self, hw_shape: Grid) -> Grid:
        keys = hw_shape[0] // self.sr_ratio, hw_shape[1] // self.sr_ratio
        if min(keys) < 1:
            raise ValueError(
                f'expected a map of at least {self.sr_ratio} tokens a side, '
                f'the sub-sampling of its keys, got {tuple(hw_shape)}; '
                'enlarge the image')
        return keys

    def forward(self, hw_shape: Grid) -> Tensor:
        """The bias of a map, (1, heads, queries, keys)."""
        hw_shape = hw_shape[0], hw_shape[1]
        bias: Tensor = self.bias
        if hw_shape != self.hw_shape:
            keys = self._keys(hw_shape)
            bias = _resize(bias, self.hw_shape, self._keys(self.hw_shape),
                           hw_shape, keys)
        return bias[None]

    def of_units(self, units: Tensor, grid: Grid, side: int) -> Tensor:
        """That of the visible tokens, in unit-major order.

        Args:
            units (Tensor): Int64 (M, K), the visible units, on the device.
            grid (tuple[int, int]): The unit grid (Gh, Gw).
            side (int): Tokens along the side of a unit.

        Returns:
            Tensor: Shape (M, heads, K * T, K * keys of a unit).
        """
        small = side // self.sr_ratio
        bias = self((grid[0] * side, grid[1] * side))[0]
        bias = bias.view(-1, grid[0], side, grid[1], side, grid[0], small,
                         grid[1], small)
        # (L, L, heads, T, keys of a unit)
        bias = bias.permute(1, 3, 5, 7, 0, 2, 4, 6, 8)
        bias = bias.reshape(grid[0] * grid[1], grid[0] * grid[1],
                            len(self.bias), side * side, small * small)
        bias = bias[units[:, :, None], units[:, None, :]]
        bias = bias.permute(0, 3, 1, 4, 2, 5)
        return bias.flatten(4, 5).flatten(2, 3)

    def _resize_on_loading(self, state_dict: Dict[str, Tensor], prefix: str,
                           *args: Any) -> None:
        bias = state_dict.get(f'{prefix}bias')
        if bias is None or bias.ndim != 3 or bias.shape == self.bias.shape:
            return
        side, small = (round(size**0.5) for size in bias.shape[1:])
        if (side**2, small**2) == bias.shape[1:]:
            state_dict[f'{prefix}bias'] = _resize(bias, (side, side),
                                                  (small, small),
                                                  self.hw_shape,
                                                  self._keys(self.hw_shape))


def _resize(bias: Tensor, queries: Grid, keys: Grid, new_queries: Grid,
            new_keys: Grid) -> Tensor:
    """Interpolate (heads, queries, keys), each a map in row-major order."""
    for old, new in ((keys, new_keys), (queries, new_queries)):
        heads, first, second = bias.shape
        maps = bias.reshape(1, heads * first, *old)
        maps = F.interpolate(maps, new, mode='bicubic', align_corners=False)
        bias = maps.view(heads, first, -1).transpose(1, 2)
    return bias
