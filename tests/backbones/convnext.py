# Copyright (c) greenmim authors. All rights reserved.
"""ConvNeXt, V1 and V2, for the common tests."""
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from mmpretrain.models import ConvNeXt

from greenmim.models import GreenMIMConvNeXt
from .convnext_twin import DenseConvNeXtTwin
from .dense import blank, conv, conv_by_unit
from .family import Family

V1 = dict(layer_scale_init_value=1e-6)
V2 = dict(use_grn=True, layer_scale_init_value=0.)

CASES = {
    # layer scale and response norm, so that mistakes in both are seen
    'both-96x160': ((96, 160), dict(use_grn=True)),
    'v1-128x128': ((128, 128), V1),
    'v1-convs-64x160': ((64, 160), dict(V1, linear_pw_conv=False)),
    'v2-160x96': ((160, 96), dict(V2, in_channels=1)),
    # one unit
    'v2-32x32': ((32, 32), V2),
    # three stages after a stem of 2 x 2: units of 8 pixels
    'three-stages-40x24':
    ((40, 24),
     dict(
         arch=dict(depths=[2, 1, 1], channels=[8, 8, 16]),
         stem_patch_size=2,
         out_indices=(2, ),
         act_cfg=dict(type='ReLU'),
         use_grn=True)),
}


class MaskedTokensSeen(DenseConvNeXtTwin):
    """Masked tokens reach visible ones through the convolutions."""

    def depthwise(self, x, layer, mask):
        return conv(x, layer, groups=layer.groups)


class MaskedResponses(DenseConvNeXtTwin):
    """Statistics over all tokens, as of a dense model."""

    def response_norm(self, x, grn, mask):
        return super().response_norm(x, grn, torch.zeros_like(mask))


class ResponsesOfUnits(DenseConvNeXtTwin):
    """Statistics come from the first row of units of an image."""

    def response_norm(self, x, grn, mask):
        mask = mask.clone()
        mask[:, 1:] = True
        return super().response_norm(x, grn, mask)


class NoDepthwise(DenseConvNeXtTwin):

    def depthwise(self, x, layer, mask):
        return torch.zeros_like(x) + layer.bias


class NoHalo(DenseConvNeXtTwin):

    def depthwise(self, x, layer, mask):
        return conv_by_unit(
            blank(x, mask), layer, mask.shape[1:],
            lambda x: F.pad(x[..., 3:-3, 3:-3], (3, ) * 4))


class SwappedHalo(DenseConvNeXtTwin):
    """What belongs above a unit is below it."""

    def depthwise(self, x, layer, mask):
        return conv_by_unit(
            blank(x, mask), layer, mask.shape[1:], lambda x: torch.cat(
                [x[..., -3:, :], x[..., 3:-3, :], x[..., :3, :]], -2))


def draw_arguments(draw, size):
    return dict(
        arch=dict(
            depths=draw(st.lists(st.integers(1, 2), min_size=4, max_size=4)),
            channels=[8, 8, 16, 16]),
        in_channels=draw(st.integers(1, 4)),
        linear_pw_conv=draw(st.booleans()),
        with_cp=draw(st.booleans()),
        **draw(st.sampled_from([V1, V2])))


def is_frozen(name, frozen_stages):
    """The parent counts stages; norms of outputs are never frozen."""
    return name.startswith(
        tuple(f'{part}.{i}.' for i in range(frozen_stages)
              for part in ('downsample_layers', 'stages')))


CONVNEXT = Family(
    name='convnext',
    green=GreenMIMConvNeXt,
    parent=ConvNeXt,
    twin=DenseConvNeXtTwin,
    micro=dict(arch=dict(depths=[1, 1, 2, 1], channels=[8, 8, 16, 16])),
    cases=CASES,
    default='both-96x160',
    options=[('both-96x160', dict(with_cp=True))],
    divided=[((96, 160), V2), ((224, 224), V1)],
    dense=[((64, 96), dict(V1, drop_path_rate=0.5)),
           ((70, 131), dict(V2, with_cp=True, in_channels=1))],
    mutations=[
        MaskedTokensSeen, MaskedResponses, ResponsesOfUnits, NoDepthwise,
        NoHalo, SwappedHalo
    ],
    waiting=[dict(V1, drop_path_rate=0.5),
             dict(V2, with_cp=True)],
    draw=draw_arguments,
    is_frozen=is_frozen,
    all_outputs=dict(out_indices=(0, 1, 2, 3), gap_before_final_norm=False),
    unused=('norm0.', 'norm1.', 'norm2.'))
