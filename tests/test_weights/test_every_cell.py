# Copyright (c) greenmim authors. All rights reserved.
"""Every family of backbones from every library that has it.

Other tests export every family to every library, see
``tests/test_tools/test_export_backbone.py``.
"""
import re

import pytest
import torch
from mmengine.config import Config
from torch import nn

from greenmim.ops import sincos_positions
from greenmim.registry import MODELS
from greenmim.weights import (TARGETS, convert_decoder_or_head, find_weights,
                              of_model, read_backbone, read_source,
                              report_loading, tensors_for)
from tests.conftest import CHECKOUT
from tests.documents import Page
from tests.micro_checkpoint import (BACKBONES, make_backbone, predict,
                                    randomise, save_model)
from tests.other_libraries import (FEATURES, has, table, timm_model,
                                   transformers_model)

TOOL = CHECKOUT / 'tools' / 'model_converters' / 'import_checkpoint.py'


@pytest.fixture
def bring(run_tool, tmp_path, capsys):
    """Import a file; the backbone that the printed config builds."""

    def run(src, source, *options):
        run_tool(TOOL, src, '--from', source, '--out', tmp_path / 'ours.pth',
                 *options)
        printed = capsys.readouterr().out
        pasted = {}
        exec(printed.split('use it with\n')[1], pasted)
        cfg = Config(dict(backbone=pasted['backbone'])).backbone
        for key in 'gap_before_final_norm', 'out_type':
            cls = MODELS.get(cfg.type)
            if key in cls.__init__.__code__.co_varnames:
                cfg[key] = dict(out_type='featmap').get(key, False)
        model = MODELS.build(cfg)
        model.init_weights()
        model.eval()
        return model, printed

    return run


def assert_same_map(ours, theirs):
    assert ours.shape == theirs.shape and theirs.std() > 0.1
    assert (ours - theirs).abs().max() <= 1e-5 * max(1, theirs.abs().max())


def images_for(name):
    side = 32 if name in ('vit', 'beit') else 64
    return torch.randn(2, 3, side, side)


@pytest.mark.parametrize('name',
                         [name for name in BACKBONES if has('timm', name)])
@torch.no_grad()
def test_from_timm(bring, tmp_path, name):
    pytest.importorskip('timm')
    theirs, options = timm_model(name)
    torch.save(theirs.state_dict(), tmp_path / 'theirs.pth')
    ours, _ = bring(tmp_path / 'theirs.pth', 'timm', *options)
    for module in ours.modules():
        if isinstance(module, nn.LayerNorm) and name != 'pvt_v2':
            module.eps = 1e-6
    x = images_for(name)
    assert_same_map(ours(x)[-1], FEATURES['timm'](name, theirs, x))


@pytest.mark.parametrize(
    'name', [name for name in BACKBONES if has('transformers', name)])
@torch.no_grad()
def test_from_transformers(bring, tmp_path, name):
    """A folder of theirs; its config holds what the tensors do not."""
    pytest.importorskip('transformers')
    theirs = transformers_model(name)
    theirs.save_pretrained(tmp_path / 'theirs')
    ours, printed = bring(tmp_path / 'theirs', 'transformers')
    x = images_for(name)
    assert_same_map(ours(x)[-1], FEATURES['transformers'](name, theirs, x))
    assert 'not recorded' not in printed


def of_convnext(model, sparse):
    """Its tensors in the names of the authors, without the last norm.

    FCMAE trains with sparse convolutions: a kernel is a list of places, down
    its columns, and vectors are rows.
    """
    theirs = {}
    for name, tensor in model.state_dict().items():
        for ours, names in (('depthwise_conv', 'dwconv'), ('pointwise_conv',
                                                           'pwconv')):
            name = name.replace(ours, names)
        if '.grn.' in name:
            tensor = tensor.reshape(1, -1) if sparse else (
                tensor.reshape(1, 1, 1, -1))  # yapf: disable
        stem = name.startswith('downsample_layers.0')
        if sparse and not stem and tensor.ndim == 4:
            out, channels, height, width = tensor.shape
            places = torch.stack([
                tensor[:, :, y, x].T for x in range(width)
                for y in range(height)
            ])
            tensor = places[:, 0] if 'dwconv' in name else places
            name = name.replace('.weight', '.kernel')
            assert out == places.shape[2] and channels == places.shape[1]
        elif sparse and 'pwconv' in name:
            name = name.replace('.weight', '.linear.weight').replace(
                '.bias', '.linear.bias')
        elif sparse and not stem and '.grn.' not in name:
            if '.norm.' in name or '.0.' in name[:20] and 'down' in name:
                first, last = name.rsplit('.', 1)
                name = f'{first}.ln.{last}'
            elif name.endswith('bias'):
                tensor = tensor[None]
        if not name.startswith('norm3'):
            theirs[name] = tensor
    return theirs


@pytest.mark.parametrize('source', ['fcmae', 'spark', 'convnext'])
@torch.no_grad()
def test_pre_training_of_convnext(bring, tmp_path, source):
    """In the names of the authors' code, with what their decoders have."""
    model = make_backbone('convnext' if source == 'spark' else 'convnext_v2')
    nn.init.ones_(model.norm3.weight), nn.init.zeros_(model.norm3.bias)
    prefix = dict(fcmae='encoder.', spark='sparse_encoder.sp_cnn.')
    theirs = {
        prefix.get(source, '') + name: tensor
        for name, tensor in of_convnext(model, source == 'fcmae').items()
    }
    theirs.update(
        dict(
            fcmae=dict.fromkeys(['mask_token', 'proj.weight', 'pred.bias']),
            spark=dict.fromkeys([
                'dense_decoder.proj.weight', 'mask_tokens.0', 'imn_m',
                'densify_norms.0.weight'
            ]),
            convnext={})[source])
    for name in theirs:
        if theirs[name] is None:
            theirs[name] = torch.ones(3)
    container = 'module' if source == 'spark' else 'model'
    torch.save({container: theirs}, tmp_path / 'theirs.pth')
    ours, printed = bring(tmp_path / 'theirs.pth', source)
    x = images_for('convnext')
    assert_same_map(ours(x)[-1], model(x)[-1])
    assert 'added with weight 1 and bias 0' in printed


@pytest.mark.parametrize('name', ['swin', 'swin_v2'])
def test_timm_before_0_9(tmp_path, name):
    """It merged patches at the end of a stage."""
    pytest.importorskip('timm')
    theirs, options = timm_model(name)
    hints = dict(window_size=[4, 4, 4, 2]) if options else {}
    tensors = theirs.state_dict()
    before = {}
    for key, tensor in tensors.items():
        match = re.match(r'layers\.(\d)(\.downsample.*)', key)
        name = f'layers.{int(match[1]) - 1}{match[2]}' if match else key
        before[name] = tensor
    found = [
        read_backbone(
            save_model(tmp_path / 'a.pth', each), 'timm', hints=hints).tensors
        for each in (tensors, before)
    ]
    assert found[0].keys() == found[1].keys()
    for key, tensor in found[0].items():
        assert torch.equal(tensor, found[1][key]), key


@torch.no_grad()
def test_the_decoder_of_mae(tmp_path):
    """MAE of transformers and in its authors' names: the same prediction."""
    hf = pytest.importorskip('transformers')
    torch.manual_seed(0)
    theirs = randomise(
        hf.ViTMAEForPreTraining(
            hf.ViTMAEConfig(
                image_size=64,
                hidden_size=24,
                num_hidden_layers=2,
                num_attention_heads=3,
                intermediate_size=48,
                decoder_hidden_size=32,
                decoder_num_attention_heads=4,
                decoder_num_hidden_layers=2,
                decoder_intermediate_size=128,
                layer_norm_eps=1e-6,
                norm_pix_loss=False,
                mask_ratio=0.)))
    positions = sincos_positions((4, 4), 32, torch.float32, 'cpu')
    theirs.decoder.decoder_pos_embed[0] = torch.cat(
        [torch.zeros(1, 32), positions])
    theirs.save_pretrained(tmp_path / 'theirs')
    file, config = find_weights(tmp_path / 'theirs')
    source = of_model(read_source(file))
    backbone = read_backbone(
        source, 'transformers', transformers=config, hints={})
    others, coverages = convert_decoder_or_head('transformers', source,
                                                backbone)
    assert not any(part.faults for part in coverages)
    model = MODELS.build(
        dict(
            type='greenmim.GreenMIM',
            backbone=dict(
                backbone.settings, type='greenmim.GreenMIMVisionTransformer'),
            neck=dict(
                type='greenmim.GreenMIMNeck',
                in_channels=24,
                embed_dims=32,
                depth=2,
                num_heads=4,
                out_channels=768,
                class_token=True),
            head=dict(type='greenmim.GreenMIMHead', unit_size=16))).eval()
    tensors = tensors_for(backbone, TARGETS['mmpretrain'])
    model.load_state_dict({**tensors, **others}, strict=True)
    x = torch.randn(2, 3, 64, 64)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[1, 2] = True  # the others are visible
    noise = mask.flatten().float().repeat(2, 1)
    theirs.config.mask_ratio = 1 / 16
    assert_same_map(predict(model, x, mask)[0], theirs(x, noise=noise).logits)

    # The same in the authors' names.
    vit, _ = backbone.family.to_layout(backbone.tensors, 'mae')
    names = {'ffn.layers.0.0': 'mlp.fc1', 'ffn.layers.1': 'mlp.fc2',
             '.ln': '.norm'}  # yapf: disable
    for name, tensor in others.items():
        name = name[len('neck.'):]
        for mine, his in names.items():
            name = name.replace(mine, his)
        vit[name] = tensor
    vit['decoder_pos_embed'] = theirs.decoder.decoder_pos_embed
    source = save_model(tmp_path / 'mae.pth', vit)
    again = read_backbone(source, 'mae', hints=dict(num_heads=3))
    assert again.settings['arch'] == backbone.settings['arch']
    found, coverages = convert_decoder_or_head('mae', source, again)
    assert not any(part.faults for part in coverages)
    assert found.keys() == others.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, others[name]), name
    lines = []
    report_loading(model, {**tensors, **found}, 'mae.pth', lines.append)
    model.load_state_dict({**tensors, **found})
    assert len(lines) == 1 and 'not loaded' not in lines[0]


@pytest.mark.parametrize('name', ['swin', 'swin_v2', 'vit'])
@torch.no_grad()
def test_the_decoder_of_transformers(bring, tmp_path, name):
    """Their linear decoder and mask token, and a line that says so."""
    pytest.importorskip('transformers')
    theirs = transformers_model(name)
    theirs.save_pretrained(tmp_path / 'theirs')
    _, printed = bring(tmp_path / 'theirs', 'transformers')
    assert 'neck: 2 of 2' in printed and 'algorithm: 1 of 1' in printed
    content = torch.load(tmp_path / 'ours.pth', weights_only=True)
    weight = content['state_dict']['neck.linear.weight']
    decoder = theirs.decoder[0]
    latent = torch.randn(1, weight.shape[1], 1, 1)
    side = round((len(weight) / 3)**0.5)
    expected = nn.functional.pixel_shuffle(decoder(latent), side)
    bias = content['state_dict']['neck.linear.bias']
    ours = weight @ latent.flatten() + bias
    torch.testing.assert_close(
        ours.view(side, side, 3).permute(2, 0, 1), expected[0])


def test_refusals_are_a_sentence(tmp_path, run_tool):
    """A foreign architecture, a file cut off, a folder without weights."""
    whole = tmp_path / 'whole.pth'
    torch.save(dict(model=dict(weight=torch.randn(999))), whole)
    (tmp_path / 'cut.pth').write_bytes(whole.read_bytes()[:1000])
    (tmp_path / 'folder').mkdir()
    for src, source, message in (
        (whole, 'timm', "of 'timm', got names such as .'weight'.; see who"),
        (tmp_path / 'cut.pth', 'timm', 'cannot read .*damaged'),
        (tmp_path / 'folder', 'transformers', 'found none; save the model'),
    ):
        with pytest.raises(SystemExit, match=message) as error:
            run_tool(TOOL, src, '--from', source)
        assert '\n' not in error.value.code.strip()


def test_the_table():
    """The page has what ``python -m tests.other_libraries`` prints."""
    assert table() in Page('docs/use_your_backbone.md').text
