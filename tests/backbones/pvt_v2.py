# Copyright (c) greenmim authors. All rights reserved.
"""PVT v2 for the common tests."""
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from greenmim.models import GreenMIMPVTv2, PyramidVisionTransformerV2
from .dense import blank, conv_by_unit
from .family import Family, draw_sr_ratios, frozen_up_to
from .pvt_v2_twin import DensePVTv2Twin


def arch(**kwargs):
    return dict(
        dict(
            embed_dims=[8, 8, 16, 16],
            depths=[2, 1, 1, 1],
            num_heads=[1, 2, 2, 4],
            mlp_ratios=[2, 2, 2, 2],
            sr_ratios=[8, 4, 2, 1]), **kwargs)


CASES = {
    '96x160': ((96, 160), dict()),
    '128x64': ((128, 64), dict(conv_norm_cfg=dict(type='LN', eps=1e-5))),
    # one unit
    '32x32': ((32, 32), dict()),
    # keys in any number a unit: 4, 16, 1, 1; other options
    'sr4-1-2-1':
    ((64, 128),
     dict(arch=arch(sr_ratios=[4, 1, 2, 1]), in_channels=1, qkv_bias=False)),
    # three stages, units of 16 pixels
    'three-stages':
    ((48, 80),
     dict(arch={
         k: v[1:]
         for k, v in arch().items()
     }, out_indices=(2, ))),
}


class MaskedKeysSeen(DensePVTv2Twin):

    def blocked_keys(self, mask, height, width):
        return super().blocked_keys(torch.zeros_like(mask), height, width)


class MaskedPixelsSeen(DensePVTv2Twin):

    def embed(self, x, embed, mask):
        return super().embed(x, embed, torch.zeros_like(mask))


class MaskedHiddenSeen(DensePVTv2Twin):
    """Masked tokens reach visible ones through the FFN's convolution."""

    def depthwise(self, x, layer, mask):
        return super().depthwise(x, layer, torch.zeros_like(mask))


class NoDepthwise(DensePVTv2Twin):

    def depthwise(self, x, layer, mask):
        return torch.zeros_like(x) + layer.bias


class NoHalo(DensePVTv2Twin):
    """Units do not see each other in the FFN's convolution."""

    def depthwise(self, x, layer, mask):
        return conv_by_unit(x, layer, mask.shape[1:],
                            lambda x: F.pad(x[..., 1:-1, 1:-1], (1, 1, 1, 1)))


class SwappedHalo(DensePVTv2Twin):
    """What belongs above a unit is below it."""

    def depthwise(self, x, layer, mask):
        x = blank(x, mask)
        last = x.shape[1] // mask.shape[1] + 1
        order = [last, *range(1, last), 0]
        return conv_by_unit(x, layer, mask.shape[1:],
                            lambda x: x[..., order, :])


class NoOverlap(DensePVTv2Twin):
    """Patch embeddings that read no pixel and token above their unit."""

    def embed(self, x, embed, mask):
        rows = mask.shape[1]
        parts = zip(x.chunk(rows, 1), mask.chunk(rows, 1))
        return torch.cat([super(NoOverlap, self).embed(part, embed, of_part)
                          for part, of_part in parts], 1)  # yapf: disable


def draw_arguments(draw, size):
    depths = draw(st.lists(st.integers(1, 2), min_size=4, max_size=4))
    return dict(
        arch=arch(sr_ratios=draw_sr_ratios(draw), depths=depths),
        qkv_bias=draw(st.booleans()),
        in_channels=draw(st.integers(1, 4)),
        with_cp=draw(st.booleans()))


is_frozen = frozen_up_to('patch_embeds.{}.', 'stages.{}.', 'norm{}.')

PVT_V2 = Family(
    name='pvt_v2',
    green=GreenMIMPVTv2,
    parent=PyramidVisionTransformerV2,
    twin=DensePVTv2Twin,
    micro=dict(arch=arch()),
    cases=CASES,
    default='96x160',
    options=[('96x160', dict(with_cp=True))],
    divided=[((64, 128), dict()), ((224, 224), dict())],
    dense=[((64, 96), dict(drop_rate=0.1, drop_path_rate=0.5)),
           ((150, 131), dict(with_cp=True, in_channels=1))],
    mutations=[
        MaskedKeysSeen, MaskedPixelsSeen, MaskedHiddenSeen, NoDepthwise,
        NoHalo, SwappedHalo, NoOverlap
    ],
    waiting=[
        dict(),
        dict(drop_path_rate=0.5, drop_rate=0.1, attn_drop_rate=0.1),
        dict(with_cp=True)
    ],
    draw=draw_arguments,
    is_frozen=is_frozen)
