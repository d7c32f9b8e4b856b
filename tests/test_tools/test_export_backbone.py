# Copyright (c) greenmim authors. All rights reserved.
"""Exported backbones compute what ours does, in every library."""
import hashlib
import importlib
import json
import logging
from functools import partial

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmpretrain.models import ResNet, SwinTransformer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from greenmim.registry import MODELS
from greenmim.weights import TARGETS
from tests.conftest import CHECKOUT
from tests.micro_checkpoint import (BACKBONES, NORM, SWIN, make_backbone,
                                    make_swin, randomise, recorded,
                                    save_training)
from tests.other_libraries import FEATURES, has

TOOLS = CHECKOUT / 'tools' / 'model_converters'
TOLERANCE = 1e-5
# 8 blocks of 14 tensors, 3 mergings of 3, the patch embedding's 4, a norm.
TENSORS = 8 * 14 + 3 * 3 + 4 + 2
OUTPUTS = (0, 1, 2, 3)


@pytest.fixture
def export(run_tool, tmp_path):
    """Export a checkpoint; the file's path."""

    def run(checkpoint, to, *options):
        run_tool(TOOLS / 'export_backbone.py', checkpoint, '--to', to,
                 *options)
        return next(
            path for path in tmp_path.glob(f'{checkpoint.stem}_to-{to}*')
            if path.suffix != '.json')

    return run


@pytest.fixture
def trained(tmp_path):
    """A checkpoint of a run whose config it holds."""
    return save_training(
        tmp_path / 'trained.pth', make_swin(), meta=recorded())


@pytest.fixture(params=[448, 224])
def batch(request):
    torch.manual_seed(1)
    return torch.randn(1, 3, request.param, request.param)


def metadata_of(path):
    return torch.load(path, weights_only=True)['meta']['greenmim']


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
    assert 'left out, not part of the backbone: neck.mask_token' in printed
    model, warnings = load_warnings(
        lambda: SwinTransformer(**SWIN, init_cfg=pretrained(path)))
    assert not warnings
    assert torch.equal(model(batch)[-1], make_swin()(batch)[-1])


@torch.no_grad()
def test_features_in_timm(export, run_tool, tmp_path, trained, batch):
    """Also the reverse: weights that timm itself has made and saved.

    Timm does not shift windows that fill the map.
    """
    timm = pytest.importorskip('timm')
    path = export(trained, 'timm')
    model = timm.models.swin_transformer.SwinTransformer(
        img_size=batch.shape[-1],
        num_classes=3,
        embed_dim=8,
        depths=SWIN['arch']['depths'],
        num_heads=SWIN['arch']['num_heads'],
        window_size=7,
        norm_layer=partial(nn.LayerNorm, eps=1e-6))
    found = timm.models.load_checkpoint(model, str(path), strict=False)
    assert found.missing_keys == ['head.fc.weight', 'head.fc.bias']
    assert not found.unexpected_keys
    model.eval()
    swin = make_swin(pad_small_map=False)

    def assert_same():
        features = model.forward_features(batch).permute(0, 3, 1, 2)
        assert_same_features(swin(batch), [features])

    assert_same()
    wrong = randomise(model).layers[1].downsample.reduction.weight
    save_file(model.state_dict(), tmp_path / 'theirs.safetensors')
    run_tool(TOOLS / 'import_checkpoint.py', tmp_path / 'theirs.safetensors',
             '--from', 'timm', '--out', tmp_path / 'ours.pth')
    assert metadata_of(tmp_path / 'ours.pth')['norm_eps'] is None
    content = torch.load(tmp_path / 'ours.pth', weights_only=True)
    swin.load_state_dict({
        name[len('backbone.'):]: tensor
        for name, tensor in content['state_dict'].items()
        if name.startswith('backbone.')
    })
    classifier = content['state_dict']['head.fc.weight']
    assert torch.equal(classifier, model.head.fc.weight)
    assert_same()
    wrong.copy_(wrong.flip(1))
    with pytest.raises(AssertionError):
        assert_same()


@pytest.mark.downstream
@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
@pytest.mark.parametrize('own', [True, False], ids=['own', 'mmpretrain'])
@torch.no_grad()
def test_features_downstream(export, trained, batch, library, own, capsys):
    """Their own Swin always shifts and pads; MMPretrain's on request."""
    path = export(trained, library)
    printed = capsys.readouterr().out
    assert 'added with weight 1 and bias 0' in printed
    assert 'norm0.weight, norm0.bias' in printed
    registry = importlib.import_module(f'{library}.registry').MODELS
    if own:
        cfg = dict(
            SWIN['arch'],
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

    def ours(**changes):
        """The Swin of the checkpoint with an output of every stage."""
        swin = make_swin(out_indices=OUTPUTS, **changes)
        swin.load_state_dict(make_swin().state_dict(), strict=False)
        for i in range(3):
            nn.init.ones_(getattr(swin, f'norm{i}').weight)
            nn.init.zeros_(getattr(swin, f'norm{i}').bias)
        return swin(batch)

    assert_same_features(ours(pad_small_map=True), model(batch))
    if batch.shape[-1] == 224:
        with pytest.raises(AssertionError):
            assert_same_features(ours(), model(batch))


@pytest.mark.downstream
@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
@torch.no_grad()
def test_every_family_downstream(export, tmp_path, capsys, library):
    """Built by their registry from the printed block, in their scope."""
    registry = importlib.import_module(f'{library}.registry').MODELS
    for family in BACKBONES:
        checkpoint, model = save_family(tmp_path / f'{family}.pth', family)
        export(checkpoint, library)
        pasted = {}
        exec(capsys.readouterr().out.split('use it with\n')[1], pasted)
        cfg = Config(dict(backbone=pasted['backbone'])).backbone
        with DefaultScope.overwrite_default_scope(library):
            loaded, _ = load_warnings(lambda: registry.build(cfg))
        if has_layers(family):
            model.out_type, model.ln1 = 'featmap', nn.Identity()
        for module in model.modules():
            if hasattr(module, 'pad_small_map'):
                module.pad_small_map = True
        size = BACKBONES[family].get('img_size', 64)
        x = torch.randn(1, 3, size, size)
        assert_same_features(model(x)[-1:], loaded(x)[-1:])


def test_metadata_and_report(export, trained):
    path = export(trained, 'mmseg')
    metadata = metadata_of(path)
    norms = [
        module for module in SwinTransformer(**metadata['backbone']).modules()
        if isinstance(module, nn.LayerNorm)
    ]
    assert len(norms) == 24 and all(norm.eps == 1e-6 for norm in norms)
    report = json.loads(path.with_name(path.name + '.json').read_text())
    digest = hashlib.sha256(trained.read_bytes()).hexdigest()
    assert metadata['source'] == dict(
        file='trained.pth', sha256=digest, layout='mmpretrain')
    assert metadata['img_size'] == 224 and metadata['norm_eps'] == 1e-6
    assert metadata['window_size'] == [7, 7, 7, 7]
    assert metadata['backbone']['arch']['depths'] == [2, 2, 2, 2]
    assert metadata['averaged'] is False
    assert len(metadata['added']) == 6 and not metadata['resized']
    assert {key: report[key] for key in metadata} == metadata
    assert report['sha256'] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report['coverage'] == dict(
        backbone=dict(total=TENSORS, matched=TENSORS, unmatched=[]))
    assert report['left_out'] == ['neck.mask_token']
    path = export(trained, 'safetensors')
    with safe_open(str(path), framework='pt') as file:
        assert json.loads(file.metadata()['greenmim'])['img_size'] == 224


@pytest.mark.parametrize('meta, img_size', [
    ({}, None),
    # MMPretrain's `norm_cfg` reaches only the norms of the outputs.
    (recorded(patch_cfg={}, stage_cfgs={}, window_size=(7, 7, 7, 4)), 224),
], ids=['bare', 'recorded'])  # yapf: disable
def test_unknown_eps(export, tmp_path, capsys, meta, img_size):
    """Without a config, the tensors determine all but image size and eps."""
    windows = (7, 7, 7, 4)
    checkpoint = save_training(
        tmp_path / 'a.pth', make_swin(window_size=windows), meta=meta)
    metadata = metadata_of(export(checkpoint, 'mmpretrain'))
    assert metadata['window_size'] == list(windows)
    assert metadata['img_size'] == img_size and metadata['norm_eps'] is None
    assert 'not recorded, or they differ' in capsys.readouterr().out
    export(checkpoint, 'mmdet')
    assert 'resized 2 bias tables to windows [7, 7, 7, 7]' in (
        capsys.readouterr().out)


def test_another_window(export, trained, capsys):
    path = export(trained, 'mmpretrain', '--window-size', '12', '12', '12',
                  '7')
    assert 'resized 6 bias tables to windows [12, 12, 12, 7]' in (
        capsys.readouterr().out)
    content = torch.load(path, weights_only=True)
    assert len(content['meta']['greenmim']['resized']) == 6
    model = make_swin(window_size=(12, 12, 12, 7))
    # The backbone resizes the tables as it loads them.
    model.load_state_dict(make_swin().state_dict(), strict=True)
    tensors = content['state_dict']
    assert len(tensors) == len(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, tensors[f'backbone.{name}']), name


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


def test_another_arch_than_recorded(export, tmp_path):
    """A lost block would be overlooked without the recorded config."""
    arch = dict(SWIN['arch'], depths=[2, 2, 4, 2])
    checkpoint = save_training(
        tmp_path / 'a.pth', make_swin(), meta=recorded(arch=arch))
    with pytest.raises(
            SystemExit,
            match=r'(?s)export_backbone.py: .*stages\.2\.blocks\.2\.norm1\.'
            'weight: missing'):
        export(checkpoint, 'mmdet')
    assert not list(tmp_path.glob('*_to-*'))


def test_config(export, make_config, trained, tmp_path):
    """It replaces what the checkpoint records."""
    config = make_config()
    with pytest.raises(
            SystemExit,
            match=r'(?s)patch_embed\.projection\.weight: expected shape .* '
            r'got \(8, 3, 4, 4\).*and \d+ more'):
        export(trained, 'mmdet', '--config', config)
    cfg = Config.fromfile(config).model.backbone.to_dict()
    cfg.pop('type')
    checkpoint = save_training(
        tmp_path / 'b.pth', make_swin(**cfg), meta=recorded())
    path = export(checkpoint, 'mmpretrain', '--config', config)
    _, warnings = load_warnings(
        lambda: SwinTransformer(**cfg, init_cfg=pretrained(path)))
    assert not warnings


def test_backbones_that_only_their_config_describes(export, tmp_path, capsys):
    """Names equal to the parent's need no layout."""
    config = tmp_path / 'config.py'
    config.write_text('model = dict(backbone=dict(type="ResNet", depth=18, '
                      'stem_channels=4, base_channels=4))')
    model = ResNet(18, stem_channels=4, base_channels=4)
    checkpoint = save_training(tmp_path / 'c.pth', model)
    path = export(checkpoint, 'safetensors', '--config', config)
    model.load_state_dict(load_file(path), strict=True)
    pasted = {}
    exec(capsys.readouterr().out.split('use it with\n')[1], pasted)
    assert type(pasted['backbone']) is ResNet
    stored = pasted['backbone'].state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(stored[name], tensor), name
    with pytest.raises(SystemExit, match='that only its config describes'):
        export(checkpoint, 'timm', '--config', config)
    with pytest.raises(
            SystemExit,
            match=r"expected a backbone of \['swin'.*the pre-training by "
            '--config'):
        export(checkpoint, 'safetensors')


def save_family(path, family):
    """A checkpoint of a backbone of the family, with its config."""
    model = make_backbone(family)
    return save_training(path, model, meta=recorded(family)), model


def has_layers(family):
    """Whether maps are those of layers, not of stages."""
    return family in ('vit', 'beit')


def marks_of(family, to):
    """Files for MMSegmentation and in safetensors have the tensors of those
    for MMDetection and MMPretrain: most are tested seldom."""
    if (family, to) == ('pvt_v2', 'mmdet'):
        return pytest.mark.downstream  # a class of MMDetection
    seldom = to in ('mmseg', 'safetensors') and family not in ('swin', 'vit')
    return pytest.mark.slow if seldom else ()


CELLS = [
    pytest.param(family, to, marks=marks_of(family, to))
    for family in BACKBONES for to in TARGETS if has(to, family)
]


@pytest.mark.parametrize('family, to', CELLS)
@torch.no_grad()
def test_printed_block_is_pasted(export, tmp_path, monkeypatch, capsys, family,
                                 to):
    """It loads every tensor, and the features are the same."""
    if to in FEATURES:
        pytest.importorskip(to)
    checkpoint, model = save_family(tmp_path / 'a.pth', family)
    export(checkpoint, to)
    printed = capsys.readouterr().out
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    pasted = {}
    exec(printed.split('use it with\n')[1], pasted)

    size = BACKBONES[family].get('img_size', 64)
    x = torch.randn(2, 3, size, size)
    if has_layers(family):
        model.out_type = 'featmap'
    if to in FEATURES:  # which load strictly, as safetensors does
        features = FEATURES[to](family, pasted['model'].eval(), x)
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
        if has_layers(family):
            assert 'also left out, since maps of several layers' in printed
            model.ln1, model.out_indices = nn.Identity(), [0, 1]
        elif hasattr(loaded, 'norm2') and family != 'pvt_v2':
            assert 'norm2.weight, norm2.bias' in printed
            for i in range(3):
                assert getattr(loaded, f'norm{i}').weight.eq(1).all()
                assert getattr(loaded, f'norm{i}').bias.eq(0).all()
        for module in model.modules():
            if hasattr(module, 'pad_small_map'):
                module.pad_small_map = True
        # HiViT has three stages.
        number = 3 if family == 'hivit' else 2 if has_layers(family) else 4
        assert len(features) == number
    expected = model(x)
    # The checkpoint of a pyramid has the norm of its last map alone.
    assert_same_features(expected, features[-len(expected):])


@pytest.mark.parametrize('family, to', CELLS)
def test_round_trip(export, run_tool, tmp_path, to, family):
    """Metadata keeps what tensors do not, and only norms are lost."""
    checkpoint, model = save_family(tmp_path / 'a.pth', family)
    path = export(checkpoint, to)
    run_tool(TOOLS / 'import_checkpoint.py', path, '--from', to, '--out',
             tmp_path / 'back.pth')
    content = torch.load(tmp_path / 'back.pth', weights_only=True)
    lost = set()
    if has_layers(family) and to in ('mmdet', 'mmseg'):
        lost = {'ln1.weight', 'ln1.bias'}
    expected = {
        f'backbone.{name}': tensor
        for name, tensor in model.state_dict().items() if name not in lost
    }
    assert content['state_dict'].keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(content['state_dict'][name], tensor), name
    metadata = content['meta']['greenmim']
    config = BACKBONES[family]
    assert metadata['backbone']['arch'] == config['arch']
    assert metadata['img_size'] == config.get('img_size', 224)
    assert not metadata['added']
    if family == 'swin':
        assert metadata['norm_eps'] == 1e-6


@pytest.mark.parametrize('to, options, message', [
    ('mmpretrain', ['--window-size', '7', '7'], 'one for each of 4 stages'),
    ('mmpretrain', ['--window-size', '0'], r'at least 1, got \[0, 0, 0, 0\]'),
    ('mmdet', ['--window-size', '7', '7', '7', '4'],
     'expected one window for all stages'),
    ('mmdet', ['--out', 'a.safetensors'], 'suffix .pth, which mmdet reads'),
    ('mmdet', ['--ema'], 'expected running averages .*leave out --ema'),
])  # yapf: disable
def test_impossible_options(export, trained, to, options, message):
    with pytest.raises(SystemExit, match=message):
        export(trained, to, *options)


def test_impossible_checkpoints(export, run_tool, tmp_path):
    checkpoint, _ = save_family(tmp_path / 'a.pth', 'cmt')
    with pytest.raises(SystemExit, match='a library that has a cmt, got timm'):
        export(checkpoint, 'timm')
    with pytest.raises(SystemExit, match='gone.pth'):
        run_tool(TOOLS / 'export_backbone.py', 'gone.pth', '--to', 'timm')
