# Copyright (c) greenmim authors. All rights reserved.
"""CMT for the common tests."""
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

from greenmim.models import CMT as DenseCMT
from greenmim.models import GreenMIMCMT
from .cmt_twin import DenseCMTTwin
from .dense import conv_by_unit
from .family import Family, draw_sr_ratios, frozen_up_to


def arch(**kwargs):
    return dict(
        dict(
            stem_channels=4,
            embed_dims=[8, 8, 16, 16],
            depths=[2, 1, 1, 1],
            num_heads=[1, 2, 2, 4],
            mlp_ratios=[2, 2, 2, 2],
            sr_ratios=[8, 4, 2, 1]), **kwargs)


def green(**kwargs):
    """With statistics that differ from a fresh model's.

    They are close to the statistics of the tokens, or tokens would differ so
    little that gradients of attention vanish.
    """
    model = GreenMIMCMT(**kwargs)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0.25, 0.2, generator=generator)
            module.running_var.uniform_(0.05, 0.2, generator=generator)
    return model


CASES = {
    # biases of another size are interpolated
    '96x160': ((96, 160), dict()),
    '128x64-own-size': ((128, 64), dict(img_size=(128, 64))),
    # one unit
    '32x32': ((32, 32), dict(img_size=32)),
    # keys in any number a unit: 4, 16, 1, 1; other options
    'sr4-1-2-1': ((64, 128),
                  dict(
                      arch=arch(sr_ratios=[4, 1, 2, 1]),
                      in_channels=1,
                      out_indices=(1, 3),
                      qkv_bias=False)),
}


class MaskedKeysSeen(DenseCMTTwin):

    def blocked_keys(self, mask, height, width):
        return super().blocked_keys(torch.zeros_like(mask), height, width)


class MaskedNeighboursSeen(DenseCMTTwin):

    def blank(self, x, mask):
        return x


class NoBias(DenseCMTTwin):

    def bias(self, position, height, width):
        return torch.zeros_like(super().bias(position, height, width))


class NoDepthwise(DenseCMTTwin):

    def depthwise(self, x, layer, mask):
        return torch.zeros_like(x) + layer.bias


class NoHalo(DenseCMTTwin):
    """Units do not see each other in depthwise convolutions."""

    def depthwise(self, x, layer, mask):
        return conv_by_unit(x, layer, mask.shape[1:],
                            lambda x: F.pad(x[..., 1:-1, 1:-1], (1, 1, 1, 1)))


class FreshStatistics(DenseCMTTwin):
    """The statistics of a fresh model."""

    def batch_norm(self, x, norm, mask):
        return F.batch_norm(
            x.flatten(0, 2), torch.zeros_like(norm.running_mean),
            torch.ones_like(norm.running_var), norm.weight,
            norm.bias).view(x.shape)


def draw_arguments(draw, size):
    depths = draw(st.lists(st.integers(1, 2), min_size=4, max_size=4))
    return dict(
        arch=arch(sr_ratios=draw_sr_ratios(draw), depths=depths),
        img_size=draw(st.sampled_from([64, size])),
        qkv_bias=draw(st.booleans()),
        in_channels=draw(st.integers(1, 4)),
        with_cp=draw(st.booleans()))


is_frozen = frozen_up_to('stem.', 'patch_embeds.{}.', 'position_biases.{}.',
                         'stages.{}.', 'norm{}.')

CMT = Family(
    name='cmt',
    green=green,
    parent=DenseCMT,
    twin=DenseCMTTwin,
    micro=dict(arch=arch(), img_size=64),
    cases=CASES,
    default='96x160',
    # in training, so that statistics are taken from visible tokens
    options=[('96x160', dict(with_cp=True)), ('128x64-own-size', dict())],
    divided=[((64, 128), dict()), ((64, 64), dict())],
    dense=[((64, 96), dict(drop_rate=0.1, drop_path_rate=0.5)),
           ((150, 131), dict(with_cp=True, in_channels=1))],
    mutations=[
        MaskedKeysSeen, MaskedNeighboursSeen, NoBias, NoDepthwise, NoHalo,
        FreshStatistics
    ],
    waiting=[
        dict(),
        dict(drop_path_rate=0.5, drop_rate=0.1, attn_drop_rate=0.1),
        dict(with_cp=True)
    ],
    draw=draw_arguments,
    is_frozen=is_frozen,
    float32_noise=1e-3,
    unused=('norm0', 'norm1', 'norm2'))
