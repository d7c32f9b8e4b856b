# Copyright (c) greenmim authors. All rights reserved.
"""Swin Transformer V2 for the common tests."""
import copy

from hypothesis import strategies as st
from mmpretrain.models import SwinTransformerV2
from torch import nn

from greenmim.models import GreenMIMSwinTransformerV2
from . import swin
from .dense import layer_norm
from .family import Family
from .swin_v2_twin import DenseSwinV2Twin

# (height, width) in pixels and arguments of the backbone. The maps of a
# stage are height / 4, / 8, / 16 and / 32.
CASES = {
    # windows divide, the last map equals the window
    'w4-64x96': ((64, 96), dict(window_size=4)),
    'w8-96x128-pad': ((96, 128), dict(window_size=8, pad_small_map=True)),
    'w8-4-4-2': ((64, 64), dict(window_size=[8, 4, 4, 2])),
    # windows neither divide nor fit the later maps
    'w6-64x96-pad': ((64, 96), dict(window_size=6, pad_small_map=True)),
    'w7-64x128': ((64, 128), dict(window_size=7)),
    'w12-96x64': ((96, 64), dict(window_size=12)),
    'w16-64x96-pad': ((64, 96), dict(window_size=16, pad_small_map=True)),
    'w24-96x64': ((96, 64), dict(window_size=24)),
    'w12-32x32': ((32, 32), dict(window_size=12)),
    # biases of a window of pre-training, a window per stage, other channels
    'w5-3-7-2': ((64, 96),
                 dict(
                     in_channels=1,
                     window_size=[5, 3, 7, 2],
                     pretrained_window_sizes=[3, 4, 0, 5])),
    # a norm after every other block, as in the huge model
    'extra-norm': ((64, 96),
                   dict(
                       arch=dict(
                           embed_dims=8,
                           depths=[1, 2, 3, 2],
                           num_heads=[1, 2, 2, 4],
                           extra_norm_every_n_blocks=2),
                       window_size=4)),
    'w4-abs-pos-resized': ((64, 96),
                           dict(
                               window_size=4,
                               img_size=64,
                               use_abs_pos_embed=True,
                               interpolate_mode='bilinear')),
    'no-qkv-bias':
    ((64, 96),
     dict(
         window_size=6,
         stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(qkv_bias=False))))),
}


class Mutated(DenseSwinV2Twin):
    """A twin with other attention modules."""

    def _block(self, x, block, masked):
        block = copy.deepcopy(block)
        self.mutate(block)
        return super()._block(x, block, masked)

    def mutate(self, block):
        raise NotImplementedError


class NoShift(Mutated):

    def mutate(self, block):
        block.attn.shift_size = 0


class ZeroBias(Mutated):
    """The same bias everywhere."""

    def mutate(self, block):
        nn.init.zeros_(block.attn.w_msa.cpb_mlp[2].weight)


class TransposedBias(Mutated):
    """Rows and columns swapped in the relative position."""

    def mutate(self, block):
        msa = block.attn.w_msa
        msa.relative_coords_table = msa.relative_coords_table.flip(-1)


class LinearOffsets(Mutated):
    """Offsets that are not log-spaced."""

    def mutate(self, block):
        table = block.attn.w_msa.relative_coords_table
        table.copy_(table.sign() * (8**table.abs() - 1))


class BiasOfShrunkWindow(swin.ShrunkTable, DenseSwinV2Twin):
    """The centre of a shrunk window looked up at another offset."""


class PlainLogitScale(Mutated):

    def mutate(self, block):
        nn.init.zeros_(block.attn.w_msa.logit_scale)


class BiasOfKeys(Mutated):
    """Biases of queries and values swapped."""

    def mutate(self, block):
        msa = block.attn.w_msa
        msa.q_bias, msa.v_bias = msa.v_bias, msa.q_bias


class PreNorm(DenseSwinV2Twin):
    """The order of V1."""

    def _block(self, x, block, masked):
        attended = self._attention(
            layer_norm(x, block.norm1), block.attn, masked)
        x = x + attended
        return x + self._mlp(layer_norm(x, block.norm2), block.ffn)


class MaskedKeysSeen(swin.MaskedKeysSeen, DenseSwinV2Twin):
    """The mutation of V1, in this twin."""


class SwappedTokens(swin.SwappedTokens, DenseSwinV2Twin):
    """The mutation of V1, in this twin."""


def draw_arguments(draw, size):
    return dict(
        window_size=draw(st.lists(st.integers(2, 15), min_size=4, max_size=4)),
        pretrained_window_sizes=draw(
            st.lists(st.sampled_from([0, 2, 5, 12]), min_size=4, max_size=4)),
        pad_small_map=draw(st.booleans()),
        attn_backend=draw(st.sampled_from(['eager', 'sdpa'])),
        in_channels=draw(st.integers(1, 4)),
        use_abs_pos_embed=draw(st.booleans()),
        with_cp=draw(st.booleans()),
        img_size=size)


SWIN_V2 = Family(
    name='swin_v2',
    green=GreenMIMSwinTransformerV2,
    parent=SwinTransformerV2,
    twin=DenseSwinV2Twin,
    micro=dict(
        arch=dict(
            embed_dims=8,
            depths=[2, 2, 2, 2],
            num_heads=[1, 2, 2, 4],
            extra_norm_every_n_blocks=0),
        drop_path_rate=0.),
    cases=CASES,
    default='w7-64x128',
    options=[
        ('w7-64x128', dict(attn_backend='sdpa')),
        ('w6-64x96-pad', dict(attn_backend='sdpa', with_cp=True)),
        ('extra-norm', dict(compile_blocks=True)),
    ],
    divided=[((64, 128), dict(window_size=[4, 4, 4, 2], pad_small_map=True)),
             ((64, 64), dict(window_size=[8, 4, 4, 2])),
             ((192, 192), dict(window_size=[12, 24, 6, 3]))],
    dense=[((64, 96), dict(window_size=7, pad_small_map=True)),
           ((128, 128),
            dict(
                window_size=4,
                drop_path_rate=0.5,
                drop_rate=0.1,
                pretrained_window_sizes=[8, 8, 8, 4])),
           ((160, 150),
            dict(window_size=4, use_abs_pos_embed=True, in_channels=1)),
           ((64, 64), dict(window_size=2, with_cp=True))],
    mutations=[
        NoShift, ZeroBias, TransposedBias, LinearOffsets, BiasOfShrunkWindow,
        PlainLogitScale, BiasOfKeys, PreNorm, MaskedKeysSeen, SwappedTokens
    ],
    waiting=[
        dict(),
        dict(drop_path_rate=0.5, with_cp=True),
        dict(use_abs_pos_embed=True, img_size=64),
    ],
    draw=draw_arguments,
    is_frozen=swin.is_frozen,
    float32_noise=1e-3,
    missing_in_parent=('relative_coords_table', 'relative_position_index'),
    unused=('norm0.', 'norm1.', 'norm2.'))
