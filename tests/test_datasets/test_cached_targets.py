# Copyright (c) greenmim authors. All rights reserved.
"""Training with cached targets is training without, up to float16."""
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS

from greenmim.datasets import (CachedTargets, SeededInfiniteSampler,
                               SeededSampler, cached_targets)
from greenmim.datasets.seeding import SeededIndex
from tests.micro import PREPROCESSOR, SWIN_ARCH, micro_config, save_images

TOOL = Path(__file__).parents[2] / 'tools' / 'misc' / 'cache_targets.py'
VIEWS = 2


@pytest.fixture
def config(tmp_path):
    """A training with a teacher: five images, two views."""
    save_images(tmp_path / 'images', 5, (90, 80))
    teacher = dict(type='SwinTransformer', arch=SWIN_ARCH, pad_small_map=True)
    torch.manual_seed(0)
    file = tmp_path / 'teacher.pth'
    torch.save(MMPRETRAIN_MODELS.build(teacher).state_dict(), file)
    teacher['init_cfg'] = dict(type='Pretrained', checkpoint=str(file))
    model = micro_config(
        data_preprocessor=PREPROCESSOR,
        head=dict(
            type='greenmim.GreenMIMHead',
            target=dict(type='greenmim.TeacherTarget', backbone=teacher)))
    model['neck']['out_channels'] = 64
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=model,
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                collate_fn=dict(type='default_collate'),
                sampler=dict(
                    type='greenmim.SeededInfiniteSampler', shuffle=True),
                dataset=dict(
                    type='greenmim.ImageFolder',
                    data_root=str(tmp_path / 'images'),
                    pipeline=[
                        dict(type='greenmim.LoadImage'),
                        dict(type='RandomResizedCrop', scale=64),
                        dict(type='RandomFlip', prob=0.5),
                        dict(type='PackInputs')
                    ]))))
    path = tmp_path / 'recipe.py'
    cfg.dump(path)
    return path


def make(run_tool, config, folder, *options):
    run_tool(TOOL, config, '--out', folder, '--views', VIEWS, '--batch-size',
             1, '--num-workers', 0, '--device', 'cpu', *options)


def losses(cfg, steps=5):
    """The losses of a model that does not learn, over two epochs."""
    torch.manual_seed(0)
    model = MMPRETRAIN_MODELS.build(cfg.model)
    model.init_weights()
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=3)
    found = []
    for _, batch in zip(range(steps), loader):
        data = model.data_preprocessor(batch)
        found.append(float(model.loss(**data)['loss'].detach()))
    return found


def test_losses_are_those_without_a_cache(run_tool, config, tmp_path,
                                          monkeypatch):
    monkeypatch.setattr(cached_targets, 'SHARD_BYTES', 3 * 2 * 4 * 64)
    folder = tmp_path / 'cache'
    make(run_tool, config, folder)
    assert len(list(folder.glob('targets_*.npy'))) == 4  # 3 + 3 + 3 + 1
    plain = Config.fromfile(config)
    plain.train_dataloader.sampler.views_per_image = VIEWS
    cached = Config.fromfile(folder / 'config.py')
    # The teacher is gone, so nothing but the cache can be the target.
    expected = losses(plain)
    cached.model.head.target.norm = True
    monkeypatch.setattr(
        'greenmim.models.TeacherTarget.forward', None, raising=True)
    monkeypatch.setattr('greenmim.models.TeacherTarget.init_weights',
                        lambda self: None)
    with pytest.raises(ValueError, match='cached targets of the target in'):
        losses(cached)
    del cached.model.head.target['norm']
    np.testing.assert_allclose(losses(cached), expected, rtol=1e-3)


def test_a_stopped_tool_continues(run_tool, config, tmp_path, monkeypatch,
                                  capsys):
    monkeypatch.setattr(cached_targets, 'SHARD_BYTES', 3 * 2 * 4 * 64)
    folder = tmp_path / 'cache'
    make(run_tool, config, folder)
    assert '5 images x 2 views x 4 units x 64 values' in capsys.readouterr(
    ).out
    expected = {x.name: np.load(x) for x in folder.glob('*.npy')}
    (folder / 'targets_00001.npy').unlink()
    with pytest.raises(FileNotFoundError, match='4 shards.*1 are missing'):
        Runner.build_dataloader(
            Config.fromfile(folder / 'config.py').train_dataloader)
    times = {x.name: x.stat().st_mtime_ns for x in folder.glob('*.npy')}
    make(run_tool, config, folder)
    assert 'of which 1 are to be made' in capsys.readouterr().out
    for name, targets in expected.items():
        assert np.array_equal(np.load(folder / name), targets)
        assert times.get(name) in (None, (folder / name).stat().st_mtime_ns)


@pytest.mark.parametrize('change, named', [
    ('train_dataloader.dataset.pipeline.1.scale=32', 'pipeline'),
    ('model.head.target.norm=False', 'key'),
])
def test_another_cache_is_not_mixed_in(run_tool, config, tmp_path, change,
                                       named):
    make(run_tool, config, tmp_path / 'cache')
    with pytest.raises(SystemExit, match=f'{named}='):
        make(run_tool, config, tmp_path / 'cache', '--cfg-options', change)


def test_other_images_are_refused(run_tool, config, tmp_path):
    make(run_tool, config, tmp_path / 'cache')
    cfg = Config.fromfile(tmp_path / 'cache' / 'config.py')
    dataset = cfg.train_dataloader.dataset
    moved = tmp_path / 'moved'
    shutil.copytree(tmp_path / 'images', moved)
    inner = dict(dataset.dataset, data_root=str(moved))
    CachedTargets(inner, dataset.cache)  # the same images elsewhere
    next(moved.iterdir()).unlink()
    with pytest.raises(ValueError, match='num_images=4, .* with 5'):
        CachedTargets(inner, dataset.cache)


def test_only_the_samplers_views_have_targets(run_tool, config, tmp_path):
    make(run_tool, config, tmp_path / 'cache')
    cfg = Config.fromfile(tmp_path / 'cache' / 'config.py')
    dataset = cfg.train_dataloader.dataset
    dataset = pickle.loads(
        pickle.dumps(CachedTargets(dataset.dataset, dataset.cache)))
    assert len(dataset) == 5 and dataset.data_root.endswith('images')
    view = SeededIndex.of_epoch(3, 0, 1, VIEWS)
    assert 'cached_target' in dataset[view]['data_samples']
    assert 'cached_target' not in dataset[3]['data_samples']
    assert 'cached_target' not in dataset[SeededIndex(3, 5)]['data_samples']
    with pytest.raises(ValueError, match='one of the 2 views.*view 3'):
        dataset[SeededIndex.of_epoch(3, 0, 2, 3)]


def test_views_repeat_and_masks_do_not():
    """The same views in every run, other masks in every epoch and run."""

    def epochs(sampler):
        for epoch in range(4):
            sampler.set_epoch(epoch)
            yield {int(i): i for i in sampler}

    runs = [
        list(epochs(SeededSampler(range(6), seed=seed, views_per_image=2)))
        for seed in (0, 1)
    ]
    for index in range(6):
        seeds = [[epoch[index].seed for epoch in run] for run in runs]
        assert seeds[0] == seeds[1]
        assert seeds[0][:2] == seeds[0][2:] and len(set(seeds[0])) == 2
        masks = [epoch[index].mask_seed for run in runs for epoch in run]
        assert len(set(masks)) == 8
    stream = iter(SeededInfiniteSampler(range(6), seed=0, views_per_image=2))
    first = {(int(i), i.view, i.seed)
             for i in (next(stream) for _ in 'x' * 12)}
    assert first == {(i, view, epoch[i].seed)
                     for view, epoch in enumerate(runs[0][:2])
                     for i in range(6)}


def test_a_folder_without_a_cache(tmp_path):
    with pytest.raises(FileNotFoundError, match='no file .*cache_targets.py'):
        cached_targets.TargetCache.load(tmp_path)
