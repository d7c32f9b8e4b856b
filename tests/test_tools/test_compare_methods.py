# Copyright (c) greenmim authors. All rights reserved.
"""Methods run on one folder for one budget, with labels and without."""
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

from greenmim.benchmarking.comparison import runs
from greenmim.benchmarking.comparison.runs import memory_of_step
from tests.backbones.checks import errors, output_and_grads, randomise
from tests.backbones.swin_twin import DenseSwinTwin
from tests.conftest import CHECKOUT
from tests.micro import save_classes

TOOLS = CHECKOUT / 'tools' / 'benchmarks'
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(TOOLS)
    import compare_methods as tool

LOADING = ['batch_size=4', 'num_workers=0', 'persistent_workers=False']
COMMON = [
    'param_scheduler.0.end=1', 'param_scheduler.1.begin=0',
    'default_hooks.logger.interval=1', 'model.backbone.arch.embed_dims=8',
    'model.backbone.arch.depths=[1,1,1]',
    'model.backbone.arch.num_heads=[1,1,2]', *(f'train_dataloader.{option}'
                                               for option in LOADING)
]
OPTIONS = [
    '--pretrain-options', *COMMON, 'model.neck.in_channels=32',
    '--finetune-options', *COMMON, 'train_cfg.max_iters=2',
    'model.head.in_channels=32', *(f'test_dataloader.{option}'
                                   for option in LOADING)
]


@pytest.fixture(scope='module')
def labelled(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('labelled')
    for split in 'train', 'test':
        save_classes(folder / split, (None, None), 4, size=(36, 40))
    return folder


@pytest.fixture
def compare(run_tool, tmp_path, monkeypatch):
    """Run the tool with micro models, return what it writes."""

    def run(data: Path, *arguments) -> SimpleNamespace:
        # Formatting the logged configs takes longer than all else.
        monkeypatch.setattr(Config, 'pretty_text', property(repr))
        monkeypatch.setattr(runs, 'WARMUP', 1)
        monkeypatch.setattr(runs, 'TIMED', 1)
        out = tmp_path / 'out'
        run_tool(TOOLS / 'compare_methods.py', data, '--work-dir', out,
                 '--budget', .05, *arguments, *OPTIONS)
        return SimpleNamespace(
            folder=out,
            report=json.loads((out / 'comparison.json').read_text('utf-8')),
            table=(out / 'comparison.md').read_text('utf-8'),
            picture=Image.open(out / 'comparison.png').convert('RGB'))

    return run


def test_with_labels(compare, labelled):
    arguments = ('--seeds', 3, '--labels-per-class', 2)
    out = compare(labelled, *arguments)
    methods = ['greenmim', 'simmim', 'fastmim', 'green x fast']
    assert list(out.report['methods']) == methods
    assert [(one['method'], one['seed']) for one in out.report['results']
            ] == [(method, 3) for method in ['scratch', *methods]]
    for result in out.report['results']:
        assert all(0 <= result[key] <= 100 for key in ('linear', 'knn'))
        assert 'fine_tuning' not in result
        if result['method'] == 'scratch':
            assert 'pretraining' not in result
            continue
        cost = out.report['methods'][result['method']]
        assert cost['images_per_second'] * cost[
            'seconds_per_iteration'] == pytest.approx(4)
        assert cost['memory'] > 1e4
        run = result['pretraining']
        assert run['iterations'] == max(
            1, round(.05 / cost['seconds_per_iteration']))
        assert len(run['loss']) == run['iterations']
        assert np.isfinite(run['loss']).all()
    assert '| scratch |  |  |  |  |  |  |' in out.table
    assert len(out.picture.getcolors(10**6)) > 5  # not blank
    # The budget is spent on training alone.
    watched = ('report.md', 'best_heldout_*.pth')
    assert not any(list(out.folder.rglob(name)) for name in watched)
    assert len(list(out.folder.rglob('scalars.json'))) >= len(methods)

    # Fine-tuning that is asked for later is added to what there is.
    before = {
        file: file.stat().st_mtime_ns
        for file in (out.folder / 'results').iterdir()
    }
    added = compare(labelled, *arguments, '--fine-tuning')
    assert all(file.stat().st_mtime_ns == time
               for file, time in before.items())
    assert all(one['fine_tuning_run']['iterations'] == 2
               for one in added.report['results'])
    assert '| fine-tuning |' in added.table.splitlines()[1]


def test_without_labels(compare, labelled):
    images = labelled / 'train'
    one = ('--seeds', 0, 1, '--pretrain', f'one={tool.METHODS["greenmim"]}')
    out = compare(images, *one)
    assert [(one['method'], one['seed'])
            for one in out.report['results']] == [('one', 0), ('one', 1)]
    assert out.table.splitlines()[1].endswith('| CPU seconds | loss |')
    assert 'accuracy' not in out.table and 'over 2 seeds' in out.table
    with pytest.raises(ValueError, match='--fine-tuning needs labels'):
        compare(images, *one, '--fine-tuning')


def small_config(method: str, labelled: Path, tmp_path: Path,
                 batch_size: int) -> Config:
    cfg = Config.fromfile(tool.METHODS[method])
    cfg.train_dataloader.update(
        batch_size=batch_size, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.data_root = str(labelled)
    cfg.work_dir = str(tmp_path)
    cfg.launcher = 'none'
    cfg.experiment_name = f'{tmp_path.name}_{method}_{batch_size}'
    return cfg


def test_memory_is_of_the_step(labelled, tmp_path):
    """It grows by as much with every image, and with what is computed."""

    def memory(method: str, batch_size: int) -> int:
        return memory_of_step(
            small_config(method, labelled, tmp_path, batch_size))

    one, two, three = (memory('simmim', 32 * k) for k in (1, 2, 3))
    assert three - two == two - one
    weights = MODELS.build(Config.fromfile(tool.METHODS['simmim']).model)
    nbytes = sum(tensor.nbytes for tensor in weights.parameters())
    # What no image adds to: at the peak there are no gradients yet.
    assert nbytes <= one - (two - one) <= 1.02 * nbytes
    assert memory('greenmim', 96) < three


def test_masked_forward_at_low_resolution_is_exact():
    """Of green x fast, whose last maps are smaller than a window."""
    cfg = Config.fromfile(tool.METHODS['green x fast']).model.backbone
    model = randomise(MODELS.build(cfg)).double().eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(
        2, 3, 24, 24, generator=generator, dtype=torch.float64)
    mask = (torch.rand(2, 9, generator=generator).argsort(1) >= 4)
    mask = mask.view(2, 3, 3)
    actual = output_and_grads(lambda x: model(x, mask), model, images)
    expected = output_and_grads(lambda x: DenseSwinTwin(model)(x, mask), model,
                                images)
    assert max(errors(actual, expected)) <= 1e-10


def test_methods_differ_in_what_their_names_say():
    green, fast, both = (
        Config.fromfile(tool.METHODS[method])
        for method in ('greenmim', 'fastmim', 'green x fast'))
    assert both.model.head == fast.model.head
    assert both.model.head.target.type == 'greenmim.HOGTarget'
    assert both.model.type == green.model.type != fast.model.type
    assert both.model.backbone == fast.model.backbone
    assert both.train_dataloader == fast.train_dataloader
    for cfg, side in ((green, 32), (fast, 24), (both, 24)):
        pipeline = cfg.train_dataloader.dataset.pipeline
        assert pipeline[1].scale == cfg.model.backbone.img_size == side
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg'):
        assert green[key] == fast[key] == both[key]
