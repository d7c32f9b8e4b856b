# Copyright (c) greenmim authors. All rights reserved.
"""HiViT for the common tests."""
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from mmpretrain.models import HiViT
from mmpretrain.models.backbones.hivit import PatchMerge
from torch import nn

from greenmim.models import GreenMIMHiViT
from .dense import conv, layer_norm, linear, visible_units
from .family import Family, Twin


class DenseHiViTTwin(Twin):
    """Dense HiViT with masked keys, driven by another model's parameters.

    Every token of the map, (B, H, W, C) in every stage.
    """

    def stages(self, images, mask):
        net = self.model
        mask = mask.expand(len(images), *mask.shape[1:])
        grid = mask.shape[1:]
        x = conv(images.permute(0, 2, 3, 1), net.patch_embed.proj)
        x = layer_norm(x, net.patch_embed.norm)
        outs = []
        first = len(net.blocks) - net.num_main_blocks
        for i, block in enumerate(net.blocks):
            if i == first:
                side = x.shape[1] // grid[0]
                x = x[:, ::side, ::side]
                if net.ape:
                    x = x + self.positions(grid)
            if isinstance(block, PatchMerge):
                outs.append(visible_units(x, mask))
                x = self.merge(x, block)
                continue
            if block.attn is not None:
                out = self.attention(
                    layer_norm(x, block.norm1), block.attn, mask)
                x = x + self.branch(out, block.gamma_1, block)
            out = F.gelu(linear(layer_norm(x, block.norm2), block.mlp.fc1))
            out = linear(out, block.mlp.fc2)
            x = x + self.branch(out, block.gamma_2, block)
        return outs + [visible_units(x, mask)]

    def branch(self, x, gamma, block):
        if gamma is not None:
            x = x * gamma
        return x if isinstance(block.drop_path, nn.Identity) else self.drop(x)

    def positions(self, grid):
        """(1, Gh, Gw, C), resized as the parent does."""
        embed = self.model.pos_embed
        side = round(embed.shape[1]**0.5)
        embed = embed.view(1, side, side, -1)
        if tuple(grid) != (side, side):
            embed = F.interpolate(
                embed.permute(0, 3, 1, 2),
                scale_factor=[(cells + 0.1) / side for cells in grid],
                mode='bicubic').permute(0, 2, 3, 1)
        return embed

    def merge(self, x, merging):
        x = torch.cat([
            x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2,
                                                                    1::2]
        ], -1)
        return linear(layer_norm(x, merging.norm), merging.reduction)

    def attention(self, x, attn, mask):
        batch, height, width, channels = x.shape
        qkv = linear(x, attn.qkv)
        qkv = qkv.view(batch, height * width, 3, attn.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        scores = attn.scale * query @ key.transpose(-2, -1)
        if attn.relative_position_bias_table is not None:
            scores = scores + self.bias(attn, height, width)
        scores = scores.masked_fill(
            mask.flatten(1)[:, None, None], float('-inf'))
        out = (scores.softmax(-1) @ value).transpose(1, 2)
        return linear(out.reshape(x.shape), attn.proj)

    def bias(self, attn, height, width):
        """(heads, H * W, H * W)."""
        table = attn.relative_position_bias_table
        side = attn.input_size
        table = table.view(2 * side - 1, 2 * side - 1, -1)
        y, x = torch.meshgrid(
            torch.arange(height), torch.arange(width), indexing='ij')
        y, x = y.flatten(), x.flatten()
        dy, dx = y[:, None] - y, x[:, None] - x
        return table[dy + side - 1, dx + side - 1].permute(2, 0, 1)


class MaskedKeysSeen(DenseHiViTTwin):

    def attention(self, x, attn, mask):
        return super().attention(x, attn, torch.zeros_like(mask))


class ZeroPositions(DenseHiViTTwin):

    def positions(self, grid):
        return torch.zeros_like(super().positions(grid))


class TransposedPositions(DenseHiViTTwin):
    """Rows and columns of the map swapped."""

    def positions(self, grid):
        embed = super().positions(grid)
        return embed.transpose(1, 2).reshape(embed.shape)


class ZeroBias(DenseHiViTTwin):

    def bias(self, attn, height, width):
        return torch.zeros_like(super().bias(attn, height, width))


class TransposedBias(DenseHiViTTwin):
    """Queries and keys swapped."""

    def bias(self, attn, height, width):
        return super().bias(attn, height, width).transpose(1, 2)


class MergedByRows(DenseHiViTTwin):
    """The tokens of a merging in row-major order, as in other models."""

    def merge(self, x, merging):
        batch, height, width, channels = x.shape
        x = x.view(batch, height // 2, 2, width // 2, 2, channels)
        x = x.transpose(2, 3).reshape(batch, height // 2, width // 2, -1)
        return linear(layer_norm(x, merging.norm), merging.reduction)


def is_frozen(name, frozen_stages):
    if frozen_stages < 1:  # the parent's 0 freezes nothing
        return False
    frozen = ['patch_embed.', 'pos_embed']
    frozen += [f'blocks.{i}.' for i in range(frozen_stages)]
    return name.startswith(tuple(frozen))


def draw_arguments(draw, size):
    num_stages = draw(st.integers(1, 3))
    depths = [1] * (num_stages - 1) + [3 * num_stages - 2]
    return dict(
        arch=dict(
            embed_dims=16,
            depths=depths,
            num_heads=draw(st.sampled_from([1, 2]))),
        inner_patches=2**(num_stages - 1),
        img_size=draw(st.sampled_from([24, 32])),
        in_chans=draw(st.integers(1, 4)),
        ape=draw(st.booleans()),
        rpe=draw(st.booleans()),
        qkv_bias=draw(st.booleans()),
        patch_norm=draw(st.booleans()),
        layer_scale_init_value=draw(st.sampled_from([0., 0.1])),
        with_cp=draw(st.booleans()))


HIVIT = Family(
    name='hivit',
    green=GreenMIMHiViT,
    parent=HiViT,
    twin=DenseHiViTTwin,
    micro=dict(
        # the shortest of three stages that the parent can forward
        arch=dict(embed_dims=16, depths=[1, 1, 7], num_heads=2),
        patch_size=8,
        img_size=64),
    cases={
        # positions resized, a map smaller than the one of the bias tables
        'both-positions-32x64': ((32, 64), dict(rpe=True)),
        'both-positions-64x64':
        ((64, 64), dict(rpe=True, layer_scale_init_value=0.1)),
        'absolute-72x24': ((72, 24), dict(in_chans=1, patch_norm=False)),
        'relative-40x24':
        ((40, 24), dict(ape=False, rpe=True, qkv_bias=False, qk_scale=0.3)),
        'no-positions-40x48': ((40, 48), dict(ape=False, in_chans=5)),
        'one-unit': ((8, 8), dict(rpe=True)),
        # units of 16 pixels that end with 2 x 2 tokens, of which one is used
        'two-stages-32x48':
        ((32, 48),
         dict(
             arch=dict(embed_dims=16, depths=[1, 4], num_heads=4),
             patch_size=16,
             inner_patches=4)),
    },
    default='both-positions-32x64',
    options=[('both-positions-32x64', dict(with_cp=True))],
    divided=[((32, 64), dict()), ((64, 64), dict(rpe=True)),
             ((48, 40), dict(ape=False, layer_scale_init_value=0.1))],
    dense=[((32, 64), dict(drop_path_rate=0.5)),
           ((64, 64),
            dict(
                rpe=True,
                drop_rate=0.1,
                attn_drop_rate=0.1,
                layer_scale_init_value=0.1)),
           ((64, 64), dict(kernel_size=4, pad_size=1, in_chans=1))],
    mutations=[
        MaskedKeysSeen, ZeroPositions, TransposedPositions, ZeroBias,
        TransposedBias, MergedByRows
    ],
    waiting=[
        dict(rpe=True),
        dict(rpe=True, with_cp=True, drop_path_rate=0.5, attn_drop_rate=0.1),
        dict(ape=False)
    ],
    draw=draw_arguments,
    is_frozen=is_frozen,
    all_outputs=dict(),
    single_output=True)
