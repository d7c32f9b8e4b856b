# Copyright (c) greenmim authors. All rights reserved.
"""ONNX and TorchScript compute what PyTorch does, or refuse to."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import greenmim
from greenmim.apis import deployment
from greenmim.apis.deployment import deploy
from greenmim.command import main
from greenmim.models import GreenMIMSwinTransformer
from tests.backbones import FAMILIES

# One block with shifted windows is recorded in seconds, four are not.
SHALLOW = dict(
    swin=dict(
        arch=dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 4]),
        window_size=3),
    swin_v2=dict(
        arch=dict(
            embed_dims=8,
            depths=[1, 1, 2, 1],
            num_heads=[1, 2, 2, 4],
            extra_norm_every_n_blocks=0),
        window_size=3))
# The sizes of images that a file for one size is written for.
SIZES = [(96, 128), (128, 160)]


def build(family):
    """A micro backbone that returns maps, with random parameters."""
    torch.manual_seed(0)
    model = family.green(**{**family.micro, **SHALLOW.get(family.name, {})})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=.2)
    for name, value in dict(
            out_type='featmap', gap_before_final_norm=False).items():
        if hasattr(model, name):
            setattr(model, name, value)
    model.eval()  # MMPretrain's Swin returns nothing
    return model


def open_file(path):
    """Images in, maps out, by the runtime of the file."""
    if path.suffix == '.pt':
        return torch.jit.load(str(path))
    import onnxruntime
    session = onnxruntime.InferenceSession(str(path))
    return lambda images: map(torch.from_numpy,
                              session.run(None, dict(images=images.numpy())))


@pytest.mark.parametrize('to', deployment.FORMATS)
@pytest.mark.parametrize('family', FAMILIES, ids=str)
@torch.no_grad()
def test_every_family(family, to, tmp_path):
    """At batches and sizes that were not recorded."""
    model = build(family)
    any_size = isinstance(model, deployment.ANY_SIZE)
    for size in SIZES[:1] if any_size or to == 'torchscript' else SIZES:
        path = tmp_path / f'a{deployment.FORMATS[to]}'
        card = deploy(model, to, path, size, dict(mean=[1.]))
        assert card['mean'] == [1.] and card['largest_error'] <= 1e-4
        run, least = open_file(path), card['at_least']
        for height, width in [(224, 96), (least, 160)] if any_size else [size]:
            for batch in 1, 3, 4:
                images = torch.randn(batch, 3, height, width)
                for ours, theirs in zip(model(images), run(images)):
                    assert ours.shape == theirs.shape
                    error = (ours - theirs).abs().max()
                    assert 0 < ours.std() and error <= 1e-4 * ours.abs().max()
        wrong = (128, 112) if any_size else (size[1], size[0])
        if any_size and least > 32:
            assert least == 96
            wrong = (64, 96)
        for shape in (2, 3, *wrong), (2, 1, *size):
            with pytest.raises(
                    Exception, match='(?i)invalid|reshape|expected'):
                run(torch.randn(shape))


@pytest.mark.parametrize('to', deployment.FORMATS)
def test_a_wrong_file_is_removed(to, tmp_path, monkeypatch):
    """MMPretrain's own code would record the size of the batch."""
    monkeypatch.setattr(deployment, 'with_recordable_windows', lambda x: x)
    swin, = (family for family in FAMILIES if family.name == 'swin')
    path = tmp_path / f'a{deployment.FORMATS[to]}'
    with pytest.raises(ValueError, match='removed'):
        deploy(build(swin), to, path, SIZES[0], {})
    assert not path.exists()


@pytest.mark.parametrize('to', deployment.FORMATS)
@torch.no_grad()
def test_a_run(run, tmp_path, monkeypatch, capsys, to):
    """The printed lines read a photograph; the numbers are the backbone's."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (100, 90, 3),
                                          np.uint8)).save('photo.jpg')
    assert main(['export', str(run.folder), '--to', to, '--out',
                 f'a{deployment.FORMATS[to]}']) == 0  # yapf: disable
    printed = capsys.readouterr().out
    assert 'other sizes are refused' not in printed
    pasted = {}
    exec(printed.split('use it with\n')[1], pasted)
    x, card = pasted['x'], pasted['card']
    expected = greenmim.load(run.folder)(torch.from_numpy(x))
    found = torch.as_tensor(pasted['maps'][0])
    torch.testing.assert_close(found, expected[0], rtol=1e-4, atol=1e-4)
    assert card['image_size'] == [128, 128] and x.shape == (1, 3, 128, 128)
    assert card['channel_order'] == 'RGB' and abs(x.mean()) < 1
    report = json.loads(
        Path(f'a{deployment.FORMATS[to]}.json').read_text('utf-8'))
    assert report['compared']['batches'] == [1, 3, 4]
    assert {name: report[name] for name in card} == card


@pytest.mark.parametrize('options, message', [
    (['--to', 'onnx', '--out', 'a.pt'], 'suffix .onnx, which onnx reads'),
    (['--to', 'onnx', '--image-size', '1', '2', '3'], 'or height and width'),
    (['--to', 'onnx', '--image-size', '64'], '64 x 64 pixels: The input'),
    (['--to', 'onnx', '--ema'], 'export to safetensors with them first'),
    (['--to', 'timm', '--image-size', '64'], "with one of ['onnx'"),
])  # yapf: disable
def test_impossible_options(run, tmp_path, monkeypatch, capsys, options,
                            message):
    monkeypatch.chdir(tmp_path)
    assert main(['export', str(run.folder), *options]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'onnxruntime', None)
    with pytest.raises(ImportError, match=r"pip install 'greenmim\[onnx\]'"):
        deploy(GreenMIMSwinTransformer(), 'onnx', tmp_path / 'a.onnx',
               (224, 224), {})
