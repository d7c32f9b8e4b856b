# Copyright (c) greenmim authors. All rights reserved.
"""Every family of backbones from every library that has it.

Other tests export every family to every library, see
``tests/test_tools/test_export_backbone.py``.
"""
import pytest
import torch
from mmengine.config import Config
from torch import nn

from greenmim.registry import MODELS
from tests.conftest import CHECKOUT
from tests.documents import Page
from tests.micro_checkpoint import BACKBONES
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


def test_the_table():
    """The page has what ``python -m tests.other_libraries`` prints."""
    assert table() in Page('docs/use_your_backbone.md').text
