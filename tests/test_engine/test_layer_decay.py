# Copyright (c) greenmim authors. All rights reserved.
import pytest
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from greenmim.models import GreenMIMVisionTransformer

CFG = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1., weight_decay=0.1),
    constructor='greenmim.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.5,
        norm_decay_mult=0.,
        custom_keys=dict(pos_embed=dict(decay_mult=0.))))


class Model(nn.Module):
    """It has a backbone and a head, and no idea of layers."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(24, 2)


def test_rates_fall_towards_the_first_layer():
    arch = dict(
        embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48)
    model = Model(GreenMIMVisionTransformer(arch=arch, img_size=32))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        groups = build_optim_wrapper(model, CFG).optimizer.param_groups
    names = {param: name for name, param in model.named_parameters()}
    found = {
        names.pop(group['params'][0]): (group['lr'], group['weight_decay'])
        for group in groups
    }
    assert not names
    for name, expected in {
            'head.weight': (1., 0.1),
            'backbone.ln1.weight': (1., 0.),
            'backbone.layers.1.attn.qkv.weight': (0.5, 0.1),
            'backbone.layers.0.ln2.bias': (0.25, 0.),
            'backbone.patch_embed.projection.weight': (0.125, 0.1),
            'backbone.pos_embed': (0.125, 0.),
    }.items():
        assert found[name] == expected, name


@pytest.mark.parametrize('model', [Model(nn.Linear(2, 2)), nn.Linear(2, 2)])
def test_a_backbone_without_depths_is_refused(model):
    with pytest.raises(ValueError, match='a backbone that has `get_layer_de'):
        build_optim_wrapper(model, CFG)
