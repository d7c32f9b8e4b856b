# Copyright (c) greenmim authors. All rights reserved.
"""What the families share: names, settings, recorded configs, damage."""
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from greenmim.registry import MODELS
from greenmim.weights import TARGETS, fit_to, read_backbone, read_source
from greenmim.weights.convert import FAMILIES
from greenmim.weights.layouts import last_stage, rename_all, translate
from tests.conftest import CHECKOUT
from tests.micro_checkpoint import (BACKBONES, FAMILY_OF, TWINS, make_backbone,
                                    make_swin, recorded, save_model,
                                    save_training)

FAMILY = {family.name: family for family in FAMILIES}


@pytest.mark.parametrize('name, source, target, expected', [
    ('a.3.x', 'a.{i}.', 'b{i}.', 'b3.x'),
    ('a.3.x', 'a.{i+1}.', 'b.{i}.', 'b.2.x'),
    ('b.2.x', 'b.{i}.', 'a.{i+1}.', 'a.3.x'),
    ('a.3.b.12.x', 'a.{i}.b.{j}.', '{j}.{i}.', '12.3.x'),
    ('axb', 'a.', 'c.', None),
    ('xa.3.b', 'a.{i}.', 'c.{i}.', None),
    ('name', '', 'prefix.', 'prefix.name'),
])  # yapf: disable
def test_translate(name, source, target, expected):
    assert translate(name, source, target) == expected


def test_last_stage():
    assert last_stage(['layers.0.x', 'layers.12.blocks.99.x']) == 12


def test_unexpected_keys():
    one = torch.ones(1)
    renamed, unexpected = rename_all(dict(x=one, y=one), (('x', 'z'), ), True)
    assert list(renamed) == ['z'] and unexpected == ('y', )


@pytest.mark.parametrize(
    'name, layout', [(name, layout) for name in BACKBONES
                     for layout in FAMILY[FAMILY_OF.get(name, name)].layouts])
def test_there_and_back(name, layout):
    """Every tensor that the library stores, and merged channels reordered."""
    family = FAMILY[FAMILY_OF.get(name, name)]
    tensors = {
        key: tensor
        for key, tensor in make_backbone(name).state_dict().items()
        if not key.endswith(family.layouts[layout].not_stored)
    }
    theirs, unexpected = family.to_layout(tensors, layout)
    assert not unexpected
    ours, unexpected = family.from_layout(theirs, layout)
    assert ours.keys() == tensors.keys() and not unexpected
    for key, tensor in tensors.items():
        assert torch.equal(ours[key], tensor), key
        if ('downsample.reduction' in key
                and family.layouts[layout].merge_order != 'openmmlab'):
            assert not any(
                torch.equal(tensor, other) for other in theirs.values()), key


def test_names_of_timm():
    """Its merging stands at the beginning of a stage."""
    theirs, _ = FAMILY['swin'].to_layout(make_swin().state_dict(), 'timm')
    assert 'layers.3.downsample.norm.bias' in theirs
    assert not any(name.startswith('layers.0.downsample') for name in theirs)


RECIPES = [
    'greenmim_swin-v2-base-w8_8xb256-amp-coslr-800e_in1k.py',
    'simmim/simmim_swin-v2-huge-w12_32xb64-amp-steplr-800e_in1k-192px.py',
    'simmim/simmim_vit-base-p16_8xb256-amp-steplr-800e_in1k.py',
    'benchmarks/classification/swin-v2-huge-w14_8xb32-amp-coslr-100e_in1k-'
    'simmim-800e.py',
]
NAMED = [
    dict(type='greenmim.GreenMIMSwinTransformer', arch='tiny'),
    dict(
        type='greenmim.GreenMIMSwinTransformer',
        arch='tiny',
        in_channels=5,
        window_size=(14, 14, 14, 7),
        use_abs_pos_embed=True),
    dict(type='greenmim.GreenMIMVisionTransformer', arch='deit-tiny'),
    dict(type='greenmim.GreenMIMPVTv2', arch='b0', in_channels=4),
    dict(type='greenmim.GreenMIMPVTv2', arch='b5', qkv_bias=False),
    dict(type='greenmim.GreenMIMCMT', arch='small', img_size=128),
    # No block that reduces keys and values.
    dict(
        type='greenmim.GreenMIMSVT',
        arch=dict(
            TWINS['arch'],
            depths=[1, 1, 1, 1],
            sr_ratios=[1, 1, 1, 1],
            window_sizes=[4, 4, 4, 2]),
        qkv_bias=True),
    dict(
        type='greenmim.GreenMIMHiViT',
        arch=dict(embed_dims=32, depths=[1, 1, 7], num_heads=4),
        img_size=64,
        rpe=True,
        ape=False,
        qkv_bias=False,
        layer_scale_init_value=0.1),
    dict(
        type='greenmim.GreenMIMConvNeXt',
        arch=dict(depths=[1, 2, 1, 1], channels=[4, 8, 16, 32]),
        in_channels=5,
        stem_patch_size=2,
        linear_pw_conv=False),
]


def small(recipe):
    """The backbone's config of a recipe, with fewer channels and blocks."""
    config = Config.fromfile(CHECKOUT / 'configs' / recipe).model.backbone
    family = 'swin_v2' if 'v2' in recipe else 'beit'
    config.arch = dict(BACKBONES[family]['arch'])
    if family == 'swin_v2':
        config.arch.update(depths=[2, 2, 2, 2], extra_norm_every_n_blocks=2)
    return config.to_dict()


def shapes(model):
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def norm_eps(model):
    return [m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)]


@pytest.mark.parametrize(
    'config', [*map(small, RECIPES), *NAMED, *BACKBONES.values()],
    ids=lambda config: config['type'].split('.')[-1])
def test_settings_are_inferred(config):
    """A recorded config, and what is read from its tensors, build the same."""
    is_named = isinstance(config['arch'], str)
    on_meta = is_named and 'Swin' not in config['type']
    with torch.device('meta' if on_meta else 'cpu'):
        model = MODELS.build({**config, 'init_cfg': None})
        family = next(f for f in FAMILIES if f.recognises(model.state_dict()))
        again = family.build_recorded(config)
        settings = family.infer_settings(model.state_dict(), 1e-6,
                                         **family.hints_from(model))
        inferred = family.build(settings)
    assert shapes(model) == shapes(again) == shapes(inferred)
    assert norm_eps(model) == norm_eps(again)
    assert set(norm_eps(inferred)) == {1e-6}
    for key in {'img_size', 'in_channels'} & config.keys() & settings.keys():
        assert settings[key] == config[key], key
    if is_named:
        zoo = type(model).arch_zoo[config['arch']]
        assert {key: zoo[key] for key in settings['arch']} == settings['arch']
    else:
        assert settings['arch'] == config['arch']
        for name, buffer in inferred.named_buffers():
            if 'relative_' in name:
                assert torch.equal(buffer, model.get_buffer(name)), name


@pytest.mark.parametrize('changes', [
    dict(arch='titanic'),
    dict(arch=dict(embed_dims=8)),
    dict(patch_size=[]),
])
@pytest.mark.parametrize('name', ['swin', 'vit'])
def test_impossible_recorded_configs(tmp_path, name, changes):
    meta = recorded(name, **changes)
    path = save_training(tmp_path / 'a.pth', make_backbone(name), meta=meta)
    with pytest.raises(
            ValueError,
            match='cannot build the backbone that the checkpoint records .*'
            'by --config'):
        read_backbone(read_source(path))


CALL = dict(type='os.mkdir', path='trace')


@pytest.mark.parametrize('name, changes', [
    ('pvt_v2', dict(act_cfg=CALL)),
    ('pvt_v2', dict(CALL)),
    ('swin', dict(norm_cfg=dict(CALL, eps=1e-6))),
    ('swin', dict(stage_cfgs=[dict(block_cfgs=dict(ffn_cfgs=dict(
        act_cfg=CALL)))] * 4)),
    ('swin_v2', dict(patch_cfg=dict(conv_type='os.mkdir'))),
    ('vit', dict(layer_cfgs=[dict(act_cfg=CALL), {}])),
    ('cmt', dict(init_cfg=[CALL])),
])  # yapf: disable
def test_nothing_recorded_is_called(tmp_path, monkeypatch, name, changes):
    """MMEngine imports what a config names, and calls it."""
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(Exception):
        MODELS.build({**BACKBONES['pvt_v2'], 'act_cfg': CALL})
    Path('trace').rmdir()
    meta = recorded(name, **changes)
    path = save_training(tmp_path / 'a.pth', make_backbone(name), meta=meta)
    backbone = read_backbone(read_source(path))
    assert backbone.settings['arch'] == BACKBONES[name]['arch']
    assert not Path('trace').exists()


@pytest.mark.parametrize('name', BACKBONES)
def test_parts_of_a_model_are_refused(name):
    tensors = make_backbone(name).state_dict()
    named = 0
    family = FAMILY[FAMILY_OF.get(name, name)]
    for key in tensors:
        try:
            family.infer_settings({
                k: v
                for k, v in tensors.items() if k != key
            })
        except ValueError as error:
            named += key in str(error)
    assert named >= 3
    with pytest.raises(ValueError, match='expected a tensor'):
        family.infer_settings({})


# family, layout, ends of their names with new values, fault
KEY = '2.blocks.1.attn.w_msa.relative_position_bias_table'
DAMAGE = [
    ('swin', 'openmmlab', {KEY: None}, f'{KEY}: missing'),
    ('swin', 'openmmlab', {KEY: torch.ones(49, 4)},
     rf'{KEY}: expected shape \(169, 4\), got \(49'),
    ('swin', 'openmmlab', {'norm3.weight': None},
     'backbone.norm3.weight: missing'),
    ('swin', 'openmmlab', {'extra': torch.ones(7)},
     'backbone.extra: unexpected'),
    ('swin', 'openmmlab', {'2.blocks.1.norm1.bias':
                           torch.full((32, ), float('nan'))},
     'norm1.bias: not all'),
    ('swin', 'openmmlab', {KEY.replace('bias_table', 'index'):
                           torch.ones(49, 49)}, 'index: '),
    ('swin', 'openmmlab', {KEY.replace('bias_table', 'index'):
                           torch.ones(49, 49).long()},
     'relative_position_index: indexes the bias table in another order'),
    ('swin', 'openmmlab', {'patch_embed.projection.weight': None},
     r'patch_embed\.projection\.weight'),
    ('swin_v2', 'swin', {'0.blocks.1.attn.v_bias': None},
     r'w_msa\.v_bias: missing'),
    ('swin_v2', 'swin', {'0.blocks.1.attn.logit_scale': torch.ones(3, 1, 1)},
     r'got \(3, 1, 1\)'),
    ('swin_v2', 'swin', {'0.blocks.1.attn.relative_coords_table':
                         torch.ones(1, 7, 7, 2)}, 'another window or'),
    ('swin_v2', 'swin', {'0.blocks.1.attn.relative_position_index':
                         torch.ones(16, 16).long()}, 'another order'),
    ('swin_v2', 'swin', {'0.blocks.1.attn.relative_coords_table': None},
     'relative_coords_table: missing'),
    ('swin_v2', 'swin', {'layers.0.blocks.1.attn.cpb_mlp.4.weight':
                         torch.ones(1)}, 'cpb_mlp.4.weight: unexpected'),
    ('beit', 'simmim', {'relative_position_index': torch.ones(5, 5).long()},
     'index: indexes the'),
    ('beit', 'simmim', {'blocks.1.attn.v_bias': None},
     r'layers\.1\.attn\.v_bias: missing'),
    ('beit', 'simmim', {'blocks.1.gamma_2': None},
     r'layers\.1\.gamma_2: missing'),
    ('beit', 'simmim', {'cls_token': None}, 'backbone.cls_token: missing'),
    ('beit', 'simmim', {'norm.weight': None, 'norm.bias': None},
     'backbone.ln1.weight: missing'),
    ('vit', 'timm', {'norm.weight': None, 'norm.bias': None},
     'ln1.weight: missing'),
    ('vit', 'timm', {'cls_token': None}, 'a square image, got 5'),
    ('vit', 'timm', {'pos_embed': torch.zeros(1, 7, 24)},
     'a square image, got 6'),
]  # yapf: disable


@pytest.mark.parametrize('name, layout, changes, fault', DAMAGE)
def test_damage_is_named(tmp_path, name, layout, changes, fault):
    """Whether or not the file has a config."""
    tensors, _ = FAMILY[name].to_layout(
        make_backbone(name).state_dict(), layout)
    for end, value in changes.items():
        names = [key for key in tensors if key.endswith(end)]
        tensors[names[-1] if names else end] = value
    source = save_model(tmp_path / 'a.pth', tensors)
    for config in [None] + [BACKBONES[name]] * (layout == 'openmmlab'):
        with pytest.raises(ValueError, match=fault):
            read_backbone(replace(source, config=config), layout)


@pytest.mark.parametrize('name, layout, hints, fault', [
    ('vit', 'timm', dict(num_heads=5), 'heads that divide the 24 channels'),
    ('vit', 'timm', dict(window_size=[7]), r"\['window_size'\] of a vit"),
    ('beit', 'timm', dict(num_heads=6), r"\['num_heads'\] of a beit"),
    ('swin_v2', 'swin', dict(window_size=[8]), r'windows \[4, 4, 4, 2\] and'),
    ('swin_v2', 'timm', {}, 'pass the windows by --window-size'),
    ('swin_v2', 'timm', dict(window_size=[4, 4]), 'for each of 4 stages'),
])
def test_impossible_hints(tmp_path, name, layout, hints, fault):
    tensors, _ = FAMILY[name].to_layout(
        make_backbone(name).state_dict(), layout)
    with pytest.raises(ValueError, match=fault):
        read_backbone(
            save_model(tmp_path / 'a.pth', tensors), layout, hints=hints)


@pytest.mark.parametrize('name', ['vit', 'beit', 'pvt_v2', 'cmt'])
def test_global_attention_has_no_window(tmp_path, name):
    path = save_training(tmp_path / 'a.pth', make_backbone(name))
    backbone = read_backbone(read_source(path))
    assert backbone.family is FAMILY[name] and backbone.windows == []
    with pytest.raises(ValueError, match='no window'):
        fit_to(backbone, TARGETS['mmpretrain'], [7])
