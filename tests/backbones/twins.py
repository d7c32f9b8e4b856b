# Copyright (c) greenmim authors. All rights reserved.
"""Twins-SVT and Twins-PCPVT for the common tests."""
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from mmpretrain.models import PCPVT, SVT

from greenmim.models import GreenMIMPCPVT, GreenMIMSVT
from .dense import blank, conv_by_unit
from .family import Family, draw_sr_ratios, frozen_up_to
from .twins_twin import DenseTwinsTwin


def arch(**kwargs):
    return dict(
        dict(
            embed_dims=[8, 8, 16, 16],
            depths=[2, 2, 2, 2],
            num_heads=[1, 2, 2, 4],
            patch_sizes=[4, 2, 2, 2],
            strides=[4, 2, 2, 2],
            mlp_ratios=[2, 2, 2, 2],
            sr_ratios=[8, 4, 2, 1]), **kwargs)


def svt_arch(windows, **kwargs):
    return arch(window_sizes=windows, **kwargs)


# (height, width) in pixels and arguments of the backbone. The maps of a
# stage are height / 4, / 8, / 16 and / 32.
SVT_CASES = {
    # windows divide the maps
    'w4-2-2-2-64x128': ((64, 128), dict(arch=svt_arch([4, 2, 2, 2]))),
    # windows neither divide nor fit the later maps
    'w7-96x160': ((96, 160), dict()),
    'w5-3-7-2-128x96': ((128, 96),
                        dict(
                            arch=svt_arch([5, 3, 7, 2]),
                            in_channels=1,
                            norm_after_stage=[False, True, False, False])),
    # one unit, whose every map is smaller than the window
    'w14-32x32': ((32, 32), dict(arch=svt_arch([14, 14, 14, 14]))),
    # keys in any number a unit: 16, 1, 4, 1; no biases; blocks of one kind
    'sr2-4-1-1': ((96, 128),
                  dict(
                      arch=svt_arch([7, 7, 7, 7],
                                    sr_ratios=[2, 4, 1, 1],
                                    depths=[1, 3, 2, 2]),
                      qkv_bias=False,
                      norm_after_stage=False)),
}
PCPVT_CASES = {
    '64x160': ((64, 160), dict()),
    'sr4-2-2-1': ((96, 96),
                  dict(
                      arch=arch(sr_ratios=[4, 2, 2, 1], depths=[1, 2, 1, 1]),
                      in_channels=5,
                      qkv_bias=False,
                      norm_after_stage=False)),
}


class MaskedKeysSeen(DenseTwinsTwin):

    def blocked_keys(self, mask, height, width):
        return super().blocked_keys(torch.zeros_like(mask), height, width)


class MaskedWindowsSeen(DenseTwinsTwin):

    def local_attention(self, x, attn, mask):
        return super().local_attention(x, attn, torch.zeros_like(mask))


class NoWindows(DenseTwinsTwin):
    """Locally grouped attention that reads the whole map."""

    def local_attention(self, x, attn, mask):
        size, attn.window_size = attn.window_size, 1000
        try:
            return super().local_attention(x, attn, mask)
        finally:
            attn.window_size = size


class NoPositionEncoding(DenseTwinsTwin):

    def position_encoding(self, x, proj, mask):
        return torch.zeros_like(x)


class NoIdentity(DenseTwinsTwin):
    """The position encoding lacks its identity."""

    def position_encoding(self, x, proj, mask):
        return super().position_encoding(x, proj, mask) - x


class MaskedNeighboursSeen(DenseTwinsTwin):

    def position_encoding(self, x, proj, mask):
        return super().position_encoding(x, proj, torch.zeros_like(mask))


class _ByUnit(DenseTwinsTwin):
    """The position encoding unit by unit, with a mistake in the halo."""

    def stages(self, images, mask):
        self.grid = mask.shape[1:]
        return super().stages(images, mask)

    def position_encoding(self, x, proj, mask):
        x = blank(x, mask)
        return conv_by_unit(x, proj, self.grid, self.edit)


class NoHalo(_ByUnit):

    @staticmethod
    def edit(x):
        return F.pad(x[..., 1:-1, 1:-1], (1, 1, 1, 1))


class SwappedHalo(_ByUnit):
    """What belongs to the left of a unit is to its right."""

    @staticmethod
    def edit(x):
        order = [x.shape[-1] - 1, *range(1, x.shape[-1] - 1), 0]
        return x[..., order]


is_frozen = frozen_up_to('patch_embeds.{}.', 'position_encodings.{}.',
                         'stages.{}.', 'norm_after_stage{}.')


def draw_options(draw):
    return dict(
        qkv_bias=draw(st.booleans()),
        norm_after_stage=draw(st.booleans()),
        in_channels=draw(st.integers(1, 4)),
        with_cp=draw(st.booleans()))


def draw_pcpvt(draw, size):
    depths = draw(st.lists(st.integers(1, 2), min_size=4, max_size=4))
    return dict(
        arch=arch(sr_ratios=draw_sr_ratios(draw), depths=depths),
        **draw_options(draw))


def draw_svt(draw, size):
    windows = draw(st.lists(st.integers(1, 15), min_size=4, max_size=4))
    return dict(
        arch=arch(sr_ratios=draw_sr_ratios(draw), window_sizes=windows),
        attn_backend=draw(st.sampled_from(['eager', 'sdpa'])),
        **draw_options(draw))


def pcpvt_parent(with_cp=False, **kwargs):
    """The parent, which knows no checkpointing."""
    return PCPVT(**kwargs)


def svt_parent(with_cp=False, attn_backend='auto', **kwargs):
    return SVT(**kwargs)


# Only the last stage has a norm, as in the paper's models.
OPTIONS = dict(
    drop_path_rate=0.,
    qkv_bias=True,
    norm_after_stage=[False, False, False, True])

SVT_FAMILY = Family(
    name='svt',
    green=GreenMIMSVT,
    parent=svt_parent,
    twin=DenseTwinsTwin,
    micro=dict(arch=svt_arch([7, 7, 7, 7]), **OPTIONS),
    cases=SVT_CASES,
    default='w7-96x160',
    options=[
        ('w7-96x160', dict(attn_backend='sdpa')),
        ('w14-32x32', dict(attn_backend='sdpa')),
        ('sr2-4-1-1', dict(with_cp=True)),
    ],
    # Where both sides need padding, the parent blocks it.
    divided=[((64, 128), dict(arch=svt_arch([4, 2, 2, 2]))),
             ((96, 160), dict()), ((224, 224), dict())],
    dense=[((224, 224), dict()),
           ((150, 131), dict(drop_path_rate=0.5, drop_rate=0.1)),
           ((64, 96), dict(with_cp=True, drop_rate=0.1)),
           ((64, 64), dict(attn_backend='sdpa', in_channels=1))],
    mutations=[
        MaskedKeysSeen, MaskedWindowsSeen, NoWindows, NoPositionEncoding,
        NoIdentity, MaskedNeighboursSeen, NoHalo, SwappedHalo
    ],
    waiting=[
        dict(),
        dict(drop_path_rate=0.5, drop_rate=0.1, attn_drop_rate=0.1),
        dict(with_cp=True)
    ],
    draw=draw_svt,
    is_frozen=is_frozen)

PCPVT_FAMILY = Family(
    name='pcpvt',
    green=GreenMIMPCPVT,
    parent=pcpvt_parent,
    twin=DenseTwinsTwin,
    micro=dict(arch=arch(depths=[1, 1, 1, 1]), **OPTIONS),
    cases=PCPVT_CASES,
    default='64x160',
    options=[('64x160', dict(with_cp=True))],
    divided=[((64, 128), dict())],
    dense=[((64, 96), dict(drop_rate=0.1, drop_path_rate=0.5))],
    mutations=[MaskedKeysSeen, MaskedNeighboursSeen],
    waiting=[dict()],
    draw=draw_pcpvt,
    is_frozen=is_frozen)
