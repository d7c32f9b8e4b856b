# Copyright (c) greenmim authors. All rights reserved.
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.models import SwinTransformer

from greenmim.registry import MODELS

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'model_converters' / 'extract_backbone.py'


@pytest.fixture
def config(make_config) -> Path:
    return make_config()


@pytest.fixture
def model(config):
    cfg = Config.fromfile(config)
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    for param in model.parameters():
        torch.nn.init.normal_(param)
    return model


def save(model, path, **changes) -> Path:
    """Save a checkpoint, with tensors changed or (None) left out."""
    state_dict = {**model.state_dict(), **changes}
    state_dict = {k: v for k, v in state_dict.items() if v is not None}
    torch.save(dict(state_dict=state_dict), path)
    return path


def test_initialises_the_dense_parent(run_tool, config, model, tmp_path,
                                      capsys):
    out = tmp_path / 'new' / 'backbone.pth'
    run_tool(TOOL, config, save(model, tmp_path / 'a.pth'), out)
    number = len(model.backbone.state_dict())
    printed = capsys.readouterr().out
    assert f'{number} of {number} tensors' in printed
    assert f"init_cfg=dict(type='Pretrained', checkpoint='{out}')" in printed

    cfg = Config.fromfile(config).model.backbone
    cfg.pop('type')
    state_dict = torch.load(out, weights_only=True)
    SwinTransformer(**cfg).load_state_dict(state_dict, strict=True)
    dense = SwinTransformer(
        **cfg, init_cfg=dict(type='Pretrained', checkpoint=str(out)))
    dense.init_weights()
    images = torch.randn(2, 3, 128, 128)
    expected = model.backbone.eval()(images)[-1]
    dense.eval()
    assert torch.equal(dense(images)[-1], expected)


KEY = 'backbone.norm3.weight'


@pytest.mark.parametrize('changes, message', [
    ({KEY: None}, 'norm3.weight: missing'),
    ({KEY: torch.ones(7)}, r'expected shape \(128,\), got \(7,\)'),
    ({'backbone.extra': torch.ones(7)}, 'extra: unknown'),
])  # yapf: disable
def test_every_tensor_must_match(run_tool, config, model, tmp_path, changes,
                                 message, capsys):
    out = tmp_path / 'backbone.pth'
    with pytest.raises(SystemExit, match=message):
        run_tool(TOOL, config, save(model, tmp_path / 'a.pth', **changes), out)
    assert not out.exists()
    number = len(model.backbone.state_dict())
    matched = number - (KEY in changes)
    assert f'{matched} of {number} tensors' in capsys.readouterr().out


def test_missing_checkpoint(run_tool, config, tmp_path):
    with pytest.raises(SystemExit, match='gone.pth'):
        run_tool(TOOL, config, 'gone.pth', tmp_path / 'backbone.pth')
