# Copyright (c) greenmim authors. All rights reserved.
"""HiViT: what it mends in its parent, and what it refuses."""
import pytest
import torch

from greenmim.models import GreenMIMHiViT

ARCH = dict(embed_dims=16, depths=[1, 1, 7], num_heads=2)


def build(**kwargs):
    kwargs = {**dict(arch=ARCH, img_size=32, patch_size=8), **kwargs}
    return GreenMIMHiViT(**kwargs)


def test_models_do_not_share_their_outputs():
    """The parent's default list is one for all models."""
    model = GreenMIMHiViT('tiny')
    build()
    assert model.out_indices == [9]


def test_frozen_blocks_stay_in_evaluation_mode():
    model = build(frozen_stages=2, drop_rate=0.1, ape=False)
    assert model.train() is model
    training = [block.training for block in model.blocks]
    assert training == [False] * 2 + [True] * 11
    assert not model.pos_drop.training and not model.patch_embed.training


def test_layer_depths_ascend():
    """From the stem over the blocks to what follows."""
    model = build()
    depths = {
        name: model.get_layer_depth(f'backbone.{name}', 'backbone.')
        for name, _ in model.named_parameters()
    }
    assert {num for _, num in depths.values()} == {15}
    assert depths['pos_embed'][0] == depths['patch_embed.proj.weight'][0] == 0
    assert depths['blocks.0.norm2.weight'][0] == 1
    assert depths['blocks.12.mlp.fc1.bias'][0] == 13
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (14, 15)


def test_refuses_what_has_no_masked_forward():
    images = torch.randn(1, 3, 32, 64)
    mask = torch.zeros(1, 4, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match='kernel equals its stride'):
        build(kernel_size=4, pad_size=1)(images, mask)
    with pytest.raises(ValueError, match='square'):
        build(img_size=(32, 64))(images, mask)
    with pytest.raises(ValueError, match='at most 4 x 4 units.*rpe'):
        build(rpe=True)(images, mask)
    with pytest.raises(ValueError, match='more blocks than the 6'):
        build(arch=dict(ARCH, depths=[1, 1, 6]))
