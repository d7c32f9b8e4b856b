# Copyright (c) greenmim authors. All rights reserved.
"""Vision Transformer for the common tests."""
import copy

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from mmpretrain.models import VisionTransformer
from torch import nn

from greenmim.models import GreenMIMVisionTransformer
from .dense import conv, enlarge, layer_norm, linear, visible_units
from .family import Family, Twin


class DenseViTTwin(Twin):
    """Dense ViT with masked keys, driven by another model's parameters.

    Every token of the map, in raster order, after the class token.
    """

    def stages(self, images, mask):
        vit = self.model
        mask = mask.expand(len(images), *mask.shape[1:])
        x = conv(images.permute(0, 2, 3, 1), vit.patch_embed.projection)
        size = x.shape[1:3]
        extra = int(vit.cls_token is not None)
        x = x.flatten(1, 2) + self._positions(size)
        masked = enlarge(mask, *size).flatten(1)
        if extra:
            first = (vit.cls_token + vit.pos_embed[:, :1]).expand(
                len(x), -1, -1)
            x = torch.cat([first, x], 1)
            masked = F.pad(masked, (1, 0))
        x = layer_norm(x, vit.pre_norm)
        outs = []
        for i, layer in enumerate(vit.layers):
            attended = self._attention(
                layer_norm(x, layer.ln1), layer.attn, masked)
            x = x + self.drop(self._scale(attended, layer.attn.gamma1))
            first, second = layer.ffn.layers[0][0], layer.ffn.layers[1]
            hidden = F.gelu(linear(layer_norm(x, layer.ln2), first))
            hidden = linear(hidden, second)
            x = x + self.drop(self._scale(hidden, layer.ffn.gamma2))
            if i == len(vit.layers) - 1 and vit.final_norm:
                x = layer_norm(x, vit.ln1)
            if i in vit.out_indices:
                outs.append(
                    visible_units(x[:, extra:].unflatten(1, size), mask))
        return outs

    def _positions(self, size):
        vit = self.model
        extra = int(vit.cls_token is not None)
        embed = vit.pos_embed[:, extra:]
        if tuple(size) != tuple(vit.patch_resolution):
            # interpolation is done in float32, as in the parent
            maps = embed.transpose(1, 2).unflatten(2, vit.patch_resolution)
            maps = F.interpolate(maps.float(), size, mode=vit.interpolate_mode)
            embed = maps.flatten(2).transpose(1, 2).to(embed)
        return embed

    @staticmethod
    def _scale(x, gamma):
        return x if isinstance(gamma, nn.Identity) else x * gamma.weight

    @staticmethod
    def _attention(x, attn, masked):
        batch, length, channels = x.shape
        qkv = linear(x, attn.qkv)
        qkv = qkv.view(batch, length, 3, attn.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) / query.shape[-1]**0.5
        scores = scores.masked_fill(masked[:, None, None], float('-inf'))
        out = (scores.softmax(-1) @ value).transpose(1, 2)
        return linear(out.reshape(batch, length, channels), attn.proj)


class MaskedKeysSeen(DenseViTTwin):

    def _attention(self, x, attn, masked):
        return super()._attention(x, attn, torch.zeros_like(masked))


class ClassTokenUnseen(DenseViTTwin):

    def _attention(self, x, attn, masked):
        masked = masked.clone()
        masked[:, 0] = True
        return super()._attention(x, attn, masked)


class ZeroPositions(DenseViTTwin):

    def _positions(self, size):
        return torch.zeros_like(super()._positions(size))


class TransposedPositions(DenseViTTwin):
    """Rows and columns of the map swapped."""

    def _positions(self, size):
        embed = super()._positions(size)
        embed = embed.unflatten(1, tuple(size)).transpose(1, 2)
        return embed.flatten(1, 2)


class NoFinalNorm(DenseViTTwin):

    def stages(self, images, mask):
        vit = self.model
        self.model = copy.copy(vit)
        self.model.final_norm = False
        outs = super().stages(images, mask)
        self.model = vit
        return outs


def is_frozen(name, frozen_stages):
    if frozen_stages < 1:  # the parent's 0 freezes nothing
        return False
    frozen = ['patch_embed.', 'pos_embed', 'cls_token', 'pre_norm.']
    frozen += [f'layers.{i}.' for i in range(frozen_stages)]
    if frozen_stages == 3:  # all layers
        frozen.append('ln1.')
    return name.startswith(tuple(frozen))


def draw_arguments(draw, size):
    patch_size = draw(st.sampled_from([2, 4, 8]))
    return dict(
        patch_size=patch_size,
        unit_size=8,
        img_size=draw(st.sampled_from([size, 24])),
        in_channels=draw(st.integers(1, 4)),
        pre_norm=draw(st.booleans()),
        final_norm=draw(st.booleans()),
        layer_scale_init_value=draw(st.sampled_from([0., 0.1])),
        with_cls_token=draw(st.booleans()),
        out_type='featmap',
        with_cp=draw(st.booleans()))


VIT = Family(
    name='vit',
    green=GreenMIMVisionTransformer,
    parent=VisionTransformer,
    twin=DenseViTTwin,
    micro=dict(
        arch=dict(
            embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32),
        patch_size=8,
        img_size=64),
    cases={
        '32x64': ((32, 64), dict(img_size=(32, 64))),
        'units-of-2x2': ((64, 96), dict(unit_size=16, img_size=(64, 96))),
        'units-of-4x4': ((64, 32), dict(unit_size=16, patch_size=4)),
        'positions-resized': ((48, 32), dict(in_channels=1)),
        'one-unit': ((8, 8), dict()),
        'no-class-token':
        ((32, 48), dict(with_cls_token=False, out_type='avg_featmap')),
        'pre-norm-layer-scale':
        ((32, 48),
         dict(pre_norm=True, layer_scale_init_value=0.1, in_channels=5)),
        'no-final-norm': ((32, 48),
                          dict(
                              final_norm=False,
                              fixed_positions=True,
                              interpolate_mode='bilinear')),
    },
    default='32x64',
    options=[('units-of-2x2', dict(with_cp=True)),
             ('positions-resized', dict(compile_blocks=True))],
    divided=[((32, 64), dict()), ((64, 64), dict(with_cls_token=False)),
             ((48, 48), dict(pre_norm=True, layer_scale_init_value=0.1))],
    dense=[((32, 64), dict()), ((64, 64), dict(out_type='raw')),
           ((64, 64), dict(out_type='cls_token', drop_rate=0.1)),
           ((64, 64), dict(out_type='avg_featmap', with_cls_token=False)),
           ((32, 32), dict(drop_path_rate=0.5, layer_scale_init_value=0.1))],
    mutations=[
        MaskedKeysSeen, ClassTokenUnseen, ZeroPositions, TransposedPositions,
        NoFinalNorm
    ],
    waiting=[
        dict(),
        dict(drop_path_rate=0.5, drop_rate=0.1, with_cp=True),
        dict(with_cls_token=False, out_type='featmap')
    ],
    draw=draw_arguments,
    is_frozen=is_frozen,
    all_outputs=dict(out_indices=[0, 1, 2], out_type='featmap'),
    unused=('ln2.', ))
