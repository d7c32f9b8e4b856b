# Copyright (c) greenmim authors. All rights reserved.
"""Swin Transformer for the common tests."""
import copy

import torch
from hypothesis import strategies as st
from mmpretrain.models import SwinTransformer
from torch import nn

from greenmim.models import GreenMIMSwinTransformer
from .dense import layer_norm
from .family import Family, frozen_up_to
from .swin_twin import DenseSwinTwin, window_of_map

# (height, width) in pixels and arguments of the backbone. The maps of a
# stage are height / 4, / 8, / 16 and / 32.
CASES = {
    # windows divide, the last map equals the window
    'w4-128x128': ((128, 128), dict(window_size=4)),
    'w4-128x128-pad': ((128, 128), dict(window_size=4, pad_small_map=True)),
    'w4-64x96': ((64, 96), dict(window_size=4)),
    # windows neither divide nor fit the later maps
    'w6-192x64': ((192, 64), dict(window_size=6)),
    'w6-64x160-pad': ((64, 160), dict(window_size=6, pad_small_map=True)),
    'w7-96x160': ((96, 160), dict(window_size=7)),
    'w7-160x96-pad': ((160, 96), dict(window_size=7, pad_small_map=True)),
    'w7-32x224': ((32, 224), dict(window_size=7)),
    'w8-160x96': ((160, 96), dict(window_size=8)),
    'w8-96x160-pad': ((96, 160), dict(window_size=8, pad_small_map=True)),
    'w12-96x192': ((96, 192), dict(window_size=12)),
    'w12-128x96-pad': ((128, 96), dict(window_size=12, pad_small_map=True)),
    'w14-160x128': ((160, 128), dict(window_size=14)),
    'w14-128x160-pad': ((128, 160), dict(window_size=14, pad_small_map=True)),
    # one unit, whose every map is smaller than the window
    'w14-32x32': ((32, 32), dict(window_size=14)),
    'w14-32x32-pad': ((32, 32), dict(window_size=14, pad_small_map=True)),
    # an odd window per stage, other channels, absolute positions
    'w5-3-7-2':
    ((128, 96),
     dict(
         in_channels=1,
         stage_cfgs=[
             dict(block_cfgs=dict(window_size=w)) for w in (5, 3, 7, 2)
         ])),
    'w7-abs-pos': ((96, 128),
                   dict(
                       window_size=7,
                       in_channels=5,
                       img_size=(96, 128),
                       use_abs_pos_embed=True)),
    # absolute positions of another image size are interpolated
    'w4-abs-pos-resized': ((64, 128),
                           dict(
                               window_size=4,
                               img_size=128,
                               use_abs_pos_embed=True,
                               interpolate_mode='bilinear')),
    'no-qkv-bias':
    ((96, 96),
     dict(
         window_size=6,
         stage_cfgs=dict(
             block_cfgs=dict(attn_cfgs=dict(qkv_bias=False, qk_scale=0.7))))),
}


class NoShift(DenseSwinTwin):

    def _attention(self, x, attn, masked):
        attn = copy.copy(attn)
        attn.shift_size = 0
        return super()._attention(x, attn, masked)


class ShiftOffByOne(DenseSwinTwin):

    def _attention(self, x, attn, masked):
        attn = copy.copy(attn)
        if attn.shift_size:
            attn.shift_size += 1
        return super()._attention(x, attn, masked)


class MaskedKeysSeen(DenseSwinTwin):

    def _attention(self, x, attn, masked):
        return super()._attention(x, attn, torch.zeros_like(masked))


class ZeroBiasTable(DenseSwinTwin):

    def _attention(self, x, attn, masked):
        attn = copy.deepcopy(attn)
        nn.init.zeros_(attn.w_msa.relative_position_bias_table)
        return super()._attention(x, attn, masked)


class TransposedBias(DenseSwinTwin):
    """Rows and columns swapped in the relative position."""

    def _attention(self, x, attn, masked):
        attn = copy.deepcopy(attn)
        table = attn.w_msa.relative_position_bias_table
        side = 2 * attn.w_msa.window_size[0] - 1
        table.data = table.data.view(side, side,
                                     -1).transpose(0,
                                                   1).reshape(side * side, -1)
        return super()._attention(x, attn, masked)


class ShrunkTable(DenseSwinTwin):
    """Coordinates of a shrunk window looked up in a table of that width."""

    def _attention(self, x, attn, masked):
        attn = copy.copy(attn)
        window, _ = window_of_map(*x.shape[1:3], attn.window_size,
                                  attn.shift_size, attn.pad_small_map)
        attn.w_msa = copy.copy(attn.w_msa)
        attn.w_msa.window_size = (window, window)
        return super()._attention(x, attn, masked)


class MicrosoftMergeOrder(DenseSwinTwin):
    """(0,0), (1,0), (0,1), (1,1), each neighbour's channels together."""

    def _merge(self, x, merge):
        x = torch.cat([
            x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2,
                                                                    1::2]
        ],
                      dim=-1)
        x = layer_norm(x, merge.norm)
        return nn.functional.linear(x, merge.reduction.weight)


class SwappedTokens(DenseSwinTwin):
    """Rows and columns swapped inside each 2x2 square that is merged."""

    def _merge(self, x, merge):
        x = x.clone()
        x[:, 0::2, 1::2], x[:, 1::2, 0::2] = (x[:, 1::2,
                                                0::2].clone(), x[:, 0::2,
                                                                 1::2].clone())
        return super()._merge(x, merge)


class FlattenedByHeight(DenseSwinTwin):
    """A map of y * W + x read as if it were y * H + x."""

    def _merge(self, x, merge):
        height, width = x.shape[1:3]
        y = torch.arange(height)[:, None]
        index = (y * height + torch.arange(width)) % (height * width)
        x = x.flatten(1, 2)[:, index.flatten()].view(x.shape)
        return super()._merge(x, merge)


MUTATIONS = [
    NoShift, ShiftOffByOne, MaskedKeysSeen, ZeroBiasTable, TransposedBias,
    ShrunkTable, MicrosoftMergeOrder, SwappedTokens, FlattenedByHeight
]


def draw_arguments(draw, size):
    return dict(
        window_size=draw(st.lists(st.integers(1, 15), min_size=4, max_size=4)),
        pad_small_map=draw(st.booleans()),
        attn_backend=draw(st.sampled_from(['eager', 'sdpa'])),
        in_channels=draw(st.integers(1, 4)),
        use_abs_pos_embed=draw(st.booleans()),
        with_cp=draw(st.booleans()),
        img_size=size)


is_frozen = frozen_up_to('patch_embed.', 'stages.{}.', 'norm{}.')

SWIN = Family(
    name='swin',
    green=GreenMIMSwinTransformer,
    parent=SwinTransformer,
    twin=DenseSwinTwin,
    micro=dict(
        arch=dict(embed_dims=8, depths=[2, 2, 2, 2], num_heads=[1, 2, 2, 4]),
        drop_path_rate=0.),
    cases=CASES,
    default='w7-96x160',
    options=[
        ('w7-96x160', dict(attn_backend='sdpa')),
        ('w6-64x160-pad', dict(attn_backend='sdpa')),
        ('w14-32x32', dict(attn_backend='sdpa')),
        ('w6-64x160-pad', dict(attn_backend='sdpa', with_cp=True)),
        ('w6-64x160-pad', dict(compile_blocks=True)),
    ],
    divided=[((128, 256), dict(window_size=4, pad_small_map=True)),
             ((128, 128), dict(window_size=4)),
             ((256, 128), dict(window_size=4)),
             ((192, 192),
              dict(stage_cfgs=[
                  dict(block_cfgs=dict(window_size=w)) for w in (12, 8, 6, 3)
              ])), ((224, 224), dict(window_size=7))],
    dense=[((128, 128), dict(window_size=4)),
           ((64, 96), dict(window_size=7, pad_small_map=True)),
           ((224, 224), dict(window_size=7, drop_path_rate=0.5,
                             drop_rate=0.1)),
           ((150, 131),
            dict(window_size=4, use_abs_pos_embed=True, in_channels=1)),
           ((128, 128),
            dict(window_size=4, out_after_downsample=True, with_cp=True))],
    mutations=MUTATIONS,
    waiting=[
        dict(),
        dict(drop_path_rate=0.5, drop_rate=0.1),
        dict(with_cp=True, attn_backend='sdpa'),
        dict(use_abs_pos_embed=True, img_size=224),
    ],
    draw=draw_arguments,
    is_frozen=is_frozen,
    unused=('norm0.', 'norm1.', 'norm2.'))
