# Copyright (c) greenmim authors. All rights reserved.
import argparse
import hashlib
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmpretrain.models import SwinTransformer
from safetensors.torch import save_file

from greenmim.models import GreenMIMSwinTransformer
from greenmim.models.utils import (convert_official_state_dict, neck_settings,
                                   swin_settings)
from tests.official_fixture import PATH, build_model, official_weights

TOOL = (
    Path(__file__).parents[2] / 'tools' / 'model_converters' /
    'greenmim_official_to_greenmim.py')

# 8 blocks of 14 tensors, 3 mergings of 3, the patch embedding's 4, a norm.
BACKBONE = 8 * 14 + 3 * 3 + 4 + 2
# A block of 12 tensors, 3 layers with weight and bias, the mask token.
NECK = 12 + 3 * 2 + 1


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the tool in this process; the checkpoint that it writes."""

    def _run(src, merge_order='microsoft'):
        dst = tmp_path / 'deeper' / 'converted.pth'
        argv = [str(TOOL), str(src), str(dst), '--merge-order', merge_order]
        monkeypatch.setattr(sys, 'argv', argv)
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
        except SystemExit:
            assert not dst.exists()
            raise
        return dst

    return _run


def save_as_authors(path, weights, **others):
    """A training checkpoint as their script writes it, options and all."""
    options = argparse.Namespace(model='green_mim', batch_size=256, blr=1.5e-4)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
    torch.save(
        dict(
            model=weights,
            optimizer=optimizer.state_dict(),
            epoch=799,
            scaler={'scale': 65536.},
            args=options,
            **others), path)
    return path


@pytest.mark.parametrize('order', ['microsoft', 'greenmim-2022', 'openmmlab'])
def test_pth(run, tmp_path, capsys, order):
    src = save_as_authors(tmp_path / 'theirs.pth', official_weights())
    checkpoint = torch.load(run(src, order), weights_only=True)
    out = capsys.readouterr().out
    assert f'backbone: {BACKBONE} of {BACKBONE} tensors matched' in out
    assert f'neck: {NECK} of {NECK} tensors matched' in out
    assert f'merge order of the source: {order}' in out
    assert "'embed_dims': 8, 'depths': [2, 2, 2, 2]" in out

    meta = checkpoint['meta']
    assert meta['merge_order'] == order
    assert meta['source'] == 'theirs.pth'
    digest = hashlib.sha256(src.read_bytes()).hexdigest()
    assert meta['source_sha256'] == digest

    expected, _ = convert_official_state_dict(official_weights(), order)
    assert checkpoint['state_dict'].keys() == expected.keys()
    for name, tensor in checkpoint['state_dict'].items():
        assert torch.equal(tensor, expected[name]), name
    build_model().load_state_dict(checkpoint['state_dict'], strict=True)


def test_safetensors(run, capsys):
    """The fixture itself: its inputs and outputs are no part of a model."""
    checkpoint = torch.load(run(PATH), weights_only=True)
    assert f'neck: {NECK} of {NECK}' in capsys.readouterr().out
    build_model().load_state_dict(checkpoint['state_dict'], strict=True)


def test_plain_swin_loads_it(run):
    """As in a fine-tuning config, with no missing key."""
    path = run(PATH)
    settings = torch.load(path, weights_only=True)['meta']['backbone']
    swin = SwinTransformer(
        **settings,
        init_cfg=dict(
            type='Pretrained', checkpoint=str(path), prefix='backbone.'))
    swin.init_weights()
    expected, _ = convert_official_state_dict(official_weights(), 'microsoft')
    assert len(swin.state_dict()) == BACKBONE
    for name, tensor in swin.state_dict().items():
        assert torch.equal(tensor, expected[f'backbone.{name}']), name


def with_shrunk_windows(weights):
    """Window 7, but 4 in the last stage, as a smaller map would leave it."""
    settings = [dict(block_cfgs=dict(window_size=w)) for w in (7, 7, 7, 4)]
    swin = GreenMIMSwinTransformer(
        arch=dict(embed_dims=8, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 4]),
        stage_cfgs=settings)
    for i in range(2):
        attn, name = swin.stages[3].blocks[i].attn.w_msa, (
            f'encoder.layers.3.blocks.{i}.attn.relative_position_')
        weights[name + 'index'] = attn.relative_position_index
        weights[name + 'bias_table'] = torch.randn(49, 4)
    return weights, settings


def test_shrunk_windows_are_named_stage_by_stage(run, tmp_path):
    weights, settings = with_shrunk_windows(official_weights())
    path = run(save_as_authors(tmp_path / 'theirs.pth', weights))
    meta = torch.load(path, weights_only=True)['meta']
    assert meta['backbone']['stage_cfgs'] == settings


@pytest.mark.parametrize(
    'architecture', [
        dict(arch='tiny', window_size=7),
        dict(
            arch=dict(
                embed_dims=16, depths=[1, 2, 4, 3], num_heads=[1, 4, 2, 8]),
            in_channels=5,
            stage_cfgs=[
                dict(block_cfgs=dict(window_size=w)) for w in (14, 14, 14, 7)
            ]),
    ],
    ids=['tiny-w7', 'w14-5-channels'])
def test_settings_of_other_architectures(architecture):
    """Renaming our own tensors back gives a file like the authors'."""
    swin = GreenMIMSwinTransformer(**architecture)
    ours = {f'backbone.{k}': v for k, v in swin.state_dict().items()}
    theirs = {to_official(name): tensor for name, tensor in ours.items()}
    assert len(theirs) == len(ours)
    converted, leftover = convert_official_state_dict(theirs, 'openmmlab')
    assert not leftover
    rebuilt = GreenMIMSwinTransformer(**swin_settings(converted))
    rebuilt.load_state_dict({
        name[len('backbone.'):]: tensor
        for name, tensor in converted.items()
    })
    for name, tensor in rebuilt.state_dict().items():
        assert torch.equal(tensor, swin.state_dict()[name]), name


def to_official(name):
    for ours, theirs in [('backbone.stages', 'encoder.layers'),
                         ('backbone.norm3', 'encoder.norm'),
                         ('backbone.', 'encoder.'), ('w_msa.', ''),
                         ('projection', 'proj'), ('ffn.layers.0.0', 'mlp.fc1'),
                         ('ffn.layers.1', 'mlp.fc2')]:
        name = name.replace(ours, theirs)
    return name


def test_neck_settings():
    converted, _ = convert_official_state_dict(official_weights(), 'microsoft')
    assert neck_settings(converted) == dict(
        in_channels=64, embed_dims=32, depth=1, out_channels=3072)


@pytest.mark.parametrize('name, ours', [
    ('encoder.layers.2.blocks.1.attn.qkv.bias',
     'backbone.stages.2.blocks.1.attn.w_msa.qkv.bias'),
    ('encoder.layers.1.downsample.norm.bias',
     'backbone.stages.1.downsample.norm.bias'),
    ('encoder.norm.weight', 'backbone.norm3.weight'),
    ('decoder_blocks.0.norm2.weight', 'neck.decoder_blocks.0.ln2.weight'),
    ('mask_token', 'neck.mask_token'),
])
def test_missing_tensors_are_named(run, tmp_path, name, ours):
    weights = official_weights()
    del weights[name]
    src = save_as_authors(tmp_path / 'theirs.pth', weights)
    with pytest.raises(SystemExit) as error:
        run(src)
    assert error.value.code.endswith(f'\n  {ours}: missing')


@pytest.mark.parametrize('name, reported', [
    ('head.weight', 'head.weight'),
    ('encoder.layers.0.blocks.0.extra.weight',
     'encoder.layers.0.blocks.0.extra.weight'),
    ('encoder.layers.0.blocks.0.attn.extra',
     'backbone.stages.0.blocks.0.attn.w_msa.extra'),
])
def test_tensors_without_a_place_are_named(run, tmp_path, name, reported):
    weights = dict(official_weights(), **{name: torch.zeros(3)})
    src = save_as_authors(tmp_path / 'theirs.pth', weights)
    with pytest.raises(SystemExit) as error:
        run(src)
    assert error.value.code.endswith(f'\n  {reported}: unknown')


def test_other_shapes_are_named(run, tmp_path):
    weights = official_weights()
    weights['encoder.layers.0.blocks.1.mlp.fc1.bias'] = torch.zeros(31)
    src = save_as_authors(tmp_path / 'theirs.pth', weights)
    with pytest.raises(
            SystemExit,
            match=r'stages\.0\.blocks\.1\.ffn\.layers\.0\.0\.bias: expected '
            r'shape \(32,\), got \(31,\)'):
        run(src)


def test_another_order_of_the_bias_table_is_refused(run, tmp_path):
    weights = official_weights()
    name = 'encoder.layers.0.blocks.1.attn.relative_position_index'
    weights[name] = weights[name].T.contiguous()
    src = save_as_authors(tmp_path / 'theirs.pth', weights)
    with pytest.raises(SystemExit, match='indexes the bias table in another'):
        run(src)


def test_other_positions_are_refused(run, tmp_path):
    weights = official_weights()
    weights['decoder_pos_embed'] = weights['decoder_pos_embed'].flip(2)
    src = save_as_authors(tmp_path / 'theirs.pth', weights)
    with pytest.raises(SystemExit, match='decoder_pos_embed: unknown'):
        run(src)


class Payload:
    """Leaves a trace if it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path, )


def test_no_code_of_the_file_is_run(run, tmp_path):
    trace = tmp_path / 'trace'
    src = save_as_authors(
        tmp_path / 'theirs.pth', official_weights(), extra=Payload(trace))
    with pytest.raises(SystemExit, match='objects that could run code'):
        run(src)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists()  # it would have been


def whole(path):
    return save_as_authors(path, official_weights()).read_bytes()


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize(
    'content', [
        b'',
        b'not a checkpoint',
        'half',
    ],
    ids=['empty', 'text', 'truncated'])
def test_damaged_files(run, tmp_path, suffix, content):
    src = tmp_path / f'theirs{suffix}'
    if content == 'half':
        data = (PATH.read_bytes() if suffix == '.safetensors' else whole(src))
        content = data[:len(data) // 2]
    src.write_bytes(content)
    with pytest.raises(SystemExit, match=f'cannot read .*theirs{suffix}'):
        run(src)


def test_missing_file(run, tmp_path):
    with pytest.raises(SystemExit, match='found no file .*nothing.pth'):
        run(tmp_path / 'nothing.pth')


@pytest.mark.parametrize('content, message', [
    (dict(state_dict={'a': torch.ones(1)}), "named tensors under 'model'"),
    (dict(model=[torch.ones(1)]), "named tensors under 'model'"),
    (dict(model={'a': 1}), "named tensors under 'model'"),
    ([torch.ones(1)], "named tensors under 'model'"),
    (dict(model={'blocks.0.weight': torch.ones(1)}), 'blocks.0.weight'),
    (dict(model={}), r'such as \[\]'),
])
def test_foreign_files(run, tmp_path, content, message):
    torch.save(content, tmp_path / 'foreign.pth')
    with pytest.raises(SystemExit, match=message):
        run(tmp_path / 'foreign.pth')


def test_foreign_safetensors(run, tmp_path):
    save_file({'encoder.weight': torch.ones(1)}, tmp_path / 'a.safetensors')
    with pytest.raises(SystemExit, match='expected the tensors of the Green'):
        run(tmp_path / 'a.safetensors')


def test_command_line(tmp_path):
    """The merge order has no default, and faults end with a status."""
    command = [sys.executable, str(TOOL), str(PATH), str(tmp_path / 'a.pth')]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert '--merge-order' in done.stderr
    assert not (tmp_path / 'a.pth').exists()
