# Copyright (c) greenmim authors. All rights reserved.
"""Exported backbones compute what ours does, in every library."""
import hashlib
import importlib
import json
import logging
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmpretrain.models import SwinTransformer
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from greenmim.models.backbones.swin import resize_bias_table
from greenmim.registry import MODELS
from greenmim.weights import TARGETS
from tests.backbones.cmt import arch as cmt_arch
from tests.micro_checkpoint import (NORM, SWIN, config_text, make_swin,
                                    randomise, save_training)

TOOLS = Path(__file__).parents[2] / 'tools' / 'model_converters'
TOLERANCE = 1e-5
# 8 blocks of 14 tensors, 3 mergings of 3, the patch embedding's 4, a norm.
TENSORS = 8 * 14 + 3 * 3 + 4 + 2
ARCH = dict(embed_dims=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 4))
OUTPUTS = (0, 1, 2, 3)


@pytest.fixture
def export(run_tool, tmp_path):
    """Export a checkpoint; the file's path."""

    def run(checkpoint, to, *options):
        run_tool(TOOLS / 'export_backbone.py', checkpoint, '--to', to,
                 *options)
        return next(
            path for path in tmp_path.glob(f'{checkpoint.stem}_to-{to}.*')
            if path.suffix != '.json')

    return run


@pytest.fixture
def trained(tmp_path):
    """A checkpoint of a run whose config it holds."""
    return save_training(
        tmp_path / 'trained.pth',
        make_swin(),
        meta=dict(cfg=config_text()),
    )


@pytest.fixture(params=[448, 224])
def batch(request):
    torch.manual_seed(1)
    return torch.randn(1, 3, request.param, request.param)


def load_warnings(build):
    """Build a model by its init_cfg; what is logged at level warning."""
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        model = build()
        model.init_weights()
    finally:
        logger.removeHandler(handler)
    model.eval()
    return model, records


def pretrained(path):
    return dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')


@torch.no_grad()
def assert_same_features(ours, theirs, tolerance=TOLERANCE):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert a.shape == b.shape and a.std() > 0.1
        assert (a - b).abs().max() <= tolerance


@torch.no_grad()
def test_features_in_mmpretrain_are_the_same_bits(export, trained, batch,
                                                  capsys):
    path = export(trained, 'mmpretrain')
    printed = capsys.readouterr().out
    assert f'backbone: {TENSORS} of {TENSORS} tensors matched' in printed
    assert 'left out, no part of the backbone: neck.mask_token' in printed
    model, warnings = load_warnings(
        lambda: SwinTransformer(**SWIN, init_cfg=pretrained(path)))
    assert not warnings
    assert torch.equal(model(batch)[-1], make_swin()(batch)[-1])


@torch.no_grad()
def test_features_in_timm(export, trained, batch):
    """Timm does not shift windows that fill the map."""
    timm = pytest.importorskip('timm')
    path = export(trained, 'timm')
    size = batch.shape[-1]
    model = timm.models.swin_transformer.SwinTransformer(
        img_size=size,
        num_classes=0,
        embed_dim=8,
        depths=ARCH['depths'],
        num_heads=ARCH['num_heads'],
        window_size=7,
        norm_layer=partial(nn.LayerNorm, eps=1e-6))
    timm.models.load_checkpoint(model, str(path), strict=True)
    model.eval()
    features = model.forward_features(batch).permute(0, 3, 1, 2)
    ours = make_swin(pad_small_map=False)(batch)
    assert_same_features(ours, [features])
    with pytest.raises(AssertionError):
        wrong = model.layers[1].downsample.reduction.weight
        wrong.copy_(wrong.flip(1))
        assert_same_features(
            ours, [model.forward_features(batch).permute(0, 3, 1, 2)])


@pytest.mark.downstream
@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
@pytest.mark.parametrize('own', [True, False], ids=['own', 'mmpretrain'])
@torch.no_grad()
def test_features_downstream(export, trained, batch, library, own, capsys):
    """Their own Swin always shifts and pads; MMPretrain's is told to."""
    path = export(trained, library)
    printed = capsys.readouterr().out
    assert 'written with weight 1 and bias 0' in printed
    assert 'norm0.weight, norm0.bias' in printed
    registry = importlib.import_module(f'{library}.registry').MODELS
    if own:
        cfg = dict(
            ARCH,
            type=f'{library}.SwinTransformer',
            norm_cfg=NORM,
            window_size=7)
    else:
        cfg = dict(
            SWIN,
            type='mmpretrain.SwinTransformer',
            out_indices=OUTPUTS,
            pad_small_map=True)
    # Their own class asks for attributes.
    cfg['init_cfg'] = Config(dict(a=pretrained(path))).a
    with DefaultScope.overwrite_default_scope(library):
        model, warnings = load_warnings(lambda: registry.build(cfg))
    assert not warnings
    assert_same_features(every_output(pad_small_map=True)(batch), model(batch))
    if batch.shape[-1] == 224:
        with pytest.raises(AssertionError):
            assert_same_features(every_output()(batch), model(batch))


def every_output(**changes):
    """The Swin of the checkpoint with an output of every stage."""
    model = make_swin(out_indices=OUTPUTS, **changes)
    model.load_state_dict(make_swin().state_dict(), strict=False)
    for i in range(3):
        nn.init.ones_(getattr(model, f'norm{i}').weight)
        nn.init.zeros_(getattr(model, f'norm{i}').bias)
    return model


def test_init_in_mmdetection_takes_every_tensor(export, trained):
    """With MMPretrain's class, which all environments have."""
    path = export(trained, 'mmdet')
    model, warnings = load_warnings(lambda: SwinTransformer(
        **SWIN, out_indices=OUTPUTS, init_cfg=pretrained(path)))
    assert not warnings
    expected = every_output().state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    # The file for MMPretrain's classifiers lacks the norms, and that is told.
    path = export(trained, 'mmpretrain')
    _, warnings = load_warnings(lambda: SwinTransformer(
        **SWIN, out_indices=OUTPUTS, init_cfg=pretrained(path)))
    assert len(warnings) == 1 and 'norm0.weight' in warnings[0]


def test_passport_and_report(export, trained):
    path = export(trained, 'mmseg')
    passport = torch.load(path, weights_only=True)['meta']['greenmim']
    norms = [
        module for module in SwinTransformer(**passport['backbone']).modules()
        if isinstance(module, nn.LayerNorm)
    ]
    assert len(norms) == 24 and all(norm.eps == 1e-6 for norm in norms)
    report = json.loads(path.with_name(path.name + '.json').read_text())
    digest = hashlib.sha256(trained.read_bytes()).hexdigest()
    assert passport['source'] == dict(
        file='trained.pth', sha256=digest, layout='mmpretrain')
    assert passport['img_size'] == 224 and passport['norm_eps'] == 1e-6
    assert passport['window_size'] == [7, 7, 7, 7]
    assert passport['backbone']['arch']['depths'] == [2, 2, 2, 2]
    assert passport['averaged'] is False
    assert len(passport['added']) == 6 and not passport['resized']
    assert {key: report[key] for key in passport} == passport
    assert report['sha256'] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report['coverage'] == dict(
        backbone=dict(total=TENSORS, matched=TENSORS, unmatched=[]))
    assert report['left_out'] == ['neck.mask_token']


def test_plain_safetensors(export, trained):
    path = export(trained, 'safetensors')
    make_swin().load_state_dict(load_file(path), strict=True)
    with safe_open(str(path), framework='pt') as file:
        assert json.loads(file.metadata()['greenmim'])['img_size'] == 224


def test_without_a_recorded_config(export, tmp_path, capsys):
    """Everything but image size and eps is read off the tensors."""
    windows = (7, 7, 7, 4)
    checkpoint = save_training(tmp_path / 'bare.pth',
                               make_swin(window_size=windows))
    path = export(checkpoint, 'mmpretrain')
    passport = torch.load(path, weights_only=True)['meta']['greenmim']
    assert passport['window_size'] == list(windows)
    assert passport['img_size'] is None and passport['norm_eps'] is None
    assert 'not recorded' in capsys.readouterr().out


def test_another_window(export, trained, capsys):
    path = export(trained, 'mmpretrain', '--window-size', '12', '12', '12',
                  '7')
    assert 'resized 6 bias tables to windows [12, 12, 12, 7]' in (
        capsys.readouterr().out)
    content = torch.load(path, weights_only=True)
    assert len(content['meta']['greenmim']['resized']) == 6
    model = make_swin(window_size=(12, 12, 12, 7))
    own = make_swin().state_dict()
    model.load_state_dict(
        {
            k[len('backbone.'):]: v
            for k, v in content['state_dict'].items()
        },
        strict=True)
    name = 'stages.1.blocks.1.attn.w_msa.relative_position_bias_table'
    assert torch.equal(model.state_dict()[name],
                       resize_bias_table(own[name], 12))
    # Loading another window into the backbone gives the same.
    loaded = make_swin(window_size=(12, 12, 12, 7))
    loaded.load_state_dict(own, strict=True)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_one_window_for_the_classes_that_take_one(export, tmp_path, capsys):
    checkpoint = save_training(tmp_path / 'shrunk.pth',
                               make_swin(window_size=(7, 7, 7, 4)))
    export(checkpoint, 'mmdet')
    assert 'resized 2 bias tables to windows [7, 7, 7, 7]' in (
        capsys.readouterr().out)
    with pytest.raises(SystemExit, match='expected one window for all stages'):
        export(checkpoint, 'mmdet', '--window-size', '7', '7', '7', '4')


@pytest.mark.parametrize('windows, message', [
    (['7', '7'], 'one for each of 4 stages'),
    (['0'], r'at least 1, got \[0, 0, 0, 0\]'),
])
def test_impossible_windows(export, trained, windows, message):
    with pytest.raises(SystemExit, match=message):
        export(trained, 'mmpretrain', '--window-size', *windows)


def test_averages_or_not(export, tmp_path, capsys):
    """MMEngine's hook has put the averages under `state_dict`."""
    raw, average = make_swin(), make_swin()
    nn.init.constant_(average.norm3.weight, 5.)
    state_dict = raw.state_dict(prefix='module.backbone.')
    checkpoint = save_training(
        tmp_path / 'a.pth', average, ema_state_dict=state_dict)
    for option, value in [((), 5.), (('--ema', ), 5.),
                          (('--raw', ), raw.norm3.weight[0].item())]:
        path = export(checkpoint, 'mmpretrain', *option)
        content = torch.load(path, weights_only=True)
        assert content['state_dict']['backbone.norm3.weight'][0] == value
        assert content['meta']['greenmim']['averaged'] == (value == 5.)
        assert ('running averages' in capsys.readouterr().out) == (value == 5.)


KEY = 'backbone.stages.2.blocks.1.attn.w_msa.relative_position_bias_table'
NAN = torch.full((32, ), float('nan'))


@pytest.mark.parametrize('recorded', [True, False])
@pytest.mark.parametrize('changes, message', [
    ({KEY: None}, f'{KEY}: missing'),
    ({KEY: torch.ones(49, 4)}, rf'{KEY}: expected shape \(169, 4\), got \(49'),
    ({'backbone.norm3.weight': None}, 'backbone.norm3.weight: missing'),
    ({'backbone.extra': torch.ones(7)}, 'backbone.extra: unknown'),
    ({'backbone.stages.2.blocks.1.norm1.bias': NAN}, 'norm1.bias: not all'),
    ({KEY.replace('table', 'index'): torch.ones(49, 49)}, 'index: '),
    ({KEY.replace('bias_table', 'index'): torch.ones(49, 49).long()},
     'relative_position_index: indexes the bias table in another order'),
    ({'backbone.patch_embed.projection.weight': None},
     r'patch_embed\.projection\.weight'),
])  # yapf: disable
def test_damage_is_named(export, tmp_path, recorded, changes, message):
    meta = dict(cfg=config_text()) if recorded else {}
    checkpoint = save_training(
        tmp_path / 'a.pth', make_swin(), changes, meta=meta)
    with pytest.raises(
            SystemExit, match=f'(?s)export_backbone.py: .*{message}'):
        export(checkpoint, 'mmpretrain')
    assert not list(tmp_path.glob('*_to-*'))


def test_norms_that_differ(export, tmp_path, capsys):
    """MMPretrain's `norm_cfg` reaches only the norms of the outputs."""
    text = config_text(patch_cfg={}, stage_cfgs={})
    checkpoint = save_training(
        tmp_path / 'a.pth', make_swin(), meta=dict(cfg=text))
    path = export(checkpoint, 'mmpretrain')
    passport = torch.load(path, weights_only=True)['meta']['greenmim']
    assert passport['norm_eps'] is None
    assert 'not recorded, or they differ' in capsys.readouterr().out


def test_another_arch_than_recorded(export, tmp_path):
    """A lost block would be overlooked if nothing told of it."""
    arch = dict(SWIN['arch'], depths=[2, 2, 4, 2])
    checkpoint = save_training(
        tmp_path / 'a.pth', make_swin(), meta=dict(cfg=config_text(arch=arch)))
    with pytest.raises(
            SystemExit, match=r'stages\.2\.blocks\.2\.norm1\.weight: missing'):
        export(checkpoint, 'mmdet')


@pytest.fixture
def config(make_config):
    return make_config()


def test_config_of_another_arch(export, trained, config):
    with pytest.raises(
            SystemExit,
            match=r'(?s)patch_embed\.projection\.weight: expected shape .* '
            r'got \(8, 3, 4, 4\).*and \d+ more'):
        export(trained, 'mmdet', '--config', config)


def test_config(export, config, tmp_path):
    cfg = Config.fromfile(config).model.backbone.to_dict()
    cfg.pop('type')
    checkpoint = save_training(
        tmp_path / 'b.pth', make_swin(**cfg), meta=dict(cfg=config_text()))
    path = export(checkpoint, 'mmpretrain', '--config', config)
    model, warnings = load_warnings(
        lambda: SwinTransformer(**cfg, init_cfg=pretrained(path)))
    assert not warnings


def test_backbones_that_only_their_config_knows(export, tmp_path, capsys):
    """Names equal to the parent's need no layout."""
    from mmpretrain.models import ConvNeXt
    arch = dict(depths=[1, 1, 1, 1], channels=[4, 8, 16, 32])
    config = tmp_path / 'config.py'
    config.write_text(f'model = dict(backbone=dict(type="ConvNeXt", '
                      f'arch={arch}, gap_before_final_norm=False))')
    model = ConvNeXt(arch, gap_before_final_norm=False)
    checkpoint = save_training(tmp_path / 'c.pth', model)
    path = export(checkpoint, 'safetensors', '--config', config)
    model.load_state_dict(load_file(path), strict=True)
    pasted = {}
    exec(capsys.readouterr().out.split('use it with\n')[1], pasted)
    assert type(pasted['backbone']) is ConvNeXt
    stored = pasted['backbone'].state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(stored[name], tensor), name
    with pytest.raises(SystemExit, match='got one that only its config knows'):
        export(checkpoint, 'timm', '--config', config)
    with pytest.raises(SystemExit, match=r"expected a backbone of \['swin'"):
        export(checkpoint, 'safetensors')


TABLES = dict(use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
VIT_ARCH = dict(
    embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48)
# family: (type, arguments)
OTHERS = {
    'vit': ('greenmim.GreenMIMVisionTransformer',
            dict(arch=VIT_ARCH, img_size=32, out_type='raw')),
    'beit': ('mmpretrain.BEiTViT',
             dict(
                 arch=VIT_ARCH,
                 img_size=32,
                 out_type='featmap',
                 final_norm=True,
                 **TABLES)),
    'swin_v2': ('greenmim.GreenMIMSwinTransformerV2',
                dict(
                    arch=dict(
                        embed_dims=8,
                        depths=[2, 1, 1, 1],
                        num_heads=[1, 2, 4, 4],
                        extra_norm_every_n_blocks=0),
                    img_size=64,
                    window_size=[4, 4, 4, 2])),
    'cmt': ('greenmim.GreenMIMCMT', dict(arch=cmt_arch(), img_size=64)),
}


def save_other(path, family):
    """A checkpoint of a backbone of the family, with its config."""
    kind, cfg = ALL[family]
    torch.manual_seed(0)
    model = randomise(MODELS.build(dict(type=kind, **cfg)))
    text = Config(
        dict(model=dict(backbone=dict(type=kind, **cfg)))).pretty_text
    return save_training(path, model, meta=dict(cfg=text)), model


@pytest.mark.parametrize('to', ['mmpretrain', 'mmdet', 'mmseg'])
@pytest.mark.parametrize('family', OTHERS)
def test_other_families_load_without_a_warning(export, tmp_path, capsys, to,
                                               family):
    """Pyramids with all norms for maps, ViT with none."""
    checkpoint, model = save_other(tmp_path / 'a.pth', family)
    path = export(checkpoint, to)
    kind, cfg = OTHERS[family]
    printed = capsys.readouterr().out
    assert kind in printed
    if to != 'mmpretrain':
        if family in ('vit', 'beit'):
            assert 'left out too, since maps of several layers' in printed
            cfg = dict(cfg, out_type='featmap', final_norm=False)
            cfg['out_indices'] = [0, 1]
        else:
            assert 'norm2.weight, norm2.bias' in printed
            cfg = dict(cfg, out_indices=[0, 1, 2, 3])
    loaded, warnings = load_warnings(lambda: MODELS.build(
        dict(type=kind, **cfg, init_cfg=pretrained(path))))
    assert not warnings
    for name, tensor in loaded.state_dict().items():
        if re.match(r'norm[012]\.', name):
            assert tensor.eq(name.endswith('weight')).all()
        else:
            assert torch.equal(tensor, model.state_dict()[name]), name


PVT = dict(
    arch=dict(
        embed_dims=[8, 16, 32, 64],
        depths=[2, 1, 1, 1],
        num_heads=[1, 2, 4, 8],
        mlp_ratios=[2, 2, 2, 2],
        sr_ratios=[8, 4, 2, 1]))
ALL = dict(
    OTHERS,
    swin=('greenmim.GreenMIMSwinTransformer', SWIN),
    pvt_v2=('greenmim.GreenMIMPVTv2', PVT))
PASTED = [
    pytest.param(
        family,
        to,
        marks=pytest.mark.downstream if
        (family, to) == ('pvt_v2', 'mmdet') else ()) for family in ALL
    for to in TARGETS if (family, to) != ('cmt', 'timm')
]


def as_maps(tokens):
    """Tokens of a square with a class token before them, as a map."""
    side = round((tokens.shape[1] - 1)**0.5)
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))


@pytest.mark.parametrize('family, to', PASTED)
@torch.no_grad()
def test_printed_block_is_pasted(export, tmp_path, capsys, family, to):
    """It loads every tensor, and the features are the same."""
    if to == 'timm':
        pytest.importorskip('timm')
    checkpoint, model = save_other(tmp_path / 'a.pth', family)
    export(checkpoint, to)
    pasted = {}
    exec(capsys.readouterr().out.split('use it with\n')[1], pasted)

    size = ALL[family][1].get('img_size', 64)
    x = torch.randn(2, 3, size, size)
    is_vit = family in ('vit', 'beit')
    if is_vit:
        model.out_type = 'featmap'
    if to == 'timm':  # which loads strictly, as safetensors does
        features = pasted['model'].eval().forward_features(x)
        if is_vit:
            features = as_maps(features)
        elif 'swin' in family:
            features = features.permute(0, 3, 1, 2)
        assert_same_features(model(x), [features])
        return
    if to == 'safetensors':
        loaded = pasted['backbone']
        loaded.eval()  # MMPretrain's returns nothing
    else:
        # MMDetection asks for attributes, which the items of configs are.
        cfg = Config(dict(backbone=pasted['backbone'])).backbone
        loaded, warnings = load_warnings(lambda: MODELS.build(cfg))
        loads = 'Load pre-trained model'  # a warning of MMDetection's PVT
        assert not [text for text in warnings if loads not in text]
    features = loaded(x)
    if to in ('mmdet', 'mmseg'):
        if is_vit:  # maps of layers, without a norm
            model.ln1, model.out_indices = nn.Identity(), [0, 1]
        for module in model.modules():
            if hasattr(module, 'pad_small_map'):
                module.pad_small_map = True
        assert len(features) == (2 if is_vit else 4)
    expected = model(x)
    # The checkpoint of a pyramid has the norm of its last map alone.
    assert_same_features(expected, features[-len(expected):])


@pytest.mark.parametrize('to', TARGETS)
@pytest.mark.parametrize('family', ['vit', 'beit', 'swin_v2'])
def test_other_families_come_back(export, run_tool, tmp_path, to, family):
    """The file tells what its tensors do not, and only norms are lost."""
    checkpoint, model = save_other(tmp_path / 'a.pth', family)
    path = export(checkpoint, to)
    run_tool(TOOLS / 'import_checkpoint.py', path, '--from', to, '--out',
             tmp_path / 'back.pth')
    content = torch.load(tmp_path / 'back.pth', weights_only=True)
    lost = set()
    if family in ('vit', 'beit') and to in ('mmdet', 'mmseg'):
        lost = {'ln1.weight', 'ln1.bias'}
    assert content['state_dict'].keys() == {
        f'backbone.{name}'
        for name in model.state_dict().keys() - lost
    }
    for name, tensor in model.state_dict().items():
        if name not in lost:
            assert torch.equal(content['state_dict'][f'backbone.{name}'],
                               tensor), name
    passport = content['meta']['greenmim']
    arch = OTHERS[family][1]['arch']
    assert passport['backbone']['arch'] == arch and not passport['added']
    assert passport['img_size'] == OTHERS[family][1]['img_size']


def test_what_timm_does_not_have(export, tmp_path):
    checkpoint, _ = save_other(tmp_path / 'a.pth', 'cmt')
    with pytest.raises(SystemExit, match='a library that has a cmt, got timm'):
        export(checkpoint, 'timm')


def test_suffix_that_the_library_does_not_read(export, trained):
    with pytest.raises(SystemExit, match='suffix .pth, which mmdet reads'):
        export(trained, 'mmdet', '--out', 'a.safetensors')


def test_missing_checkpoint(run_tool):
    with pytest.raises(SystemExit, match='gone.pth'):
        run_tool(TOOLS / 'export_backbone.py', 'gone.pth', '--to', 'timm')
