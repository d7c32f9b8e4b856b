# Copyright (c) greenmim authors. All rights reserved.
"""Settings that follow those on which they depend, and misspelt ones."""
import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS, RUNNERS

from greenmim.engine import LearningHook
from greenmim.engine.hooks import linked_settings_hook
from greenmim.engine.hooks.linked_settings_hook import _shorten_warm_up
from greenmim.engine.launch import (build_runner, one_line_errors, read_config,
                                    set_options)
from tests.micro import micro_runner, save_images
from tests.recipes import RECIPES, length_of, load, recipe_id

SCHEDULE = [
    dict(
        type='LinearLR', start_factor=1e-3, end=40,
        convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=40, convert_to_iter_based=True)
]


def rates(schedulers, length, epochs=1, warm_up=None):
    """The learning rates of a run, whatever may fail in building them."""
    total = epochs * length
    runner = SimpleNamespace(
        max_iters=total,
        max_epochs=epochs,
        train_dataloader=range(length),
        cfg=dict(warm_up=warm_up),
        logger=logging.getLogger())
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.)
    built = []
    for scheduler in _shorten_warm_up(runner, copy.deepcopy(schedulers)):
        by_epoch = scheduler.get('by_epoch', True)
        scheduler.setdefault('end', epochs if by_epoch else total)
        built.append(
            PARAM_SCHEDULERS.build(
                scheduler,
                default_args=dict(optimizer=optimizer, epoch_length=length)))
    found = []
    for i in range(total):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in built:
            if not scheduler.by_epoch or (i + 1) % length == 0:
                scheduler.step()
    return found


@pytest.mark.parametrize('path', RECIPES, ids=recipe_id)
def test_every_recipe_keeps_the_share_of_its_warm_up(path):
    """In an epoch of one batch, of a few, or of many."""
    config = load(path)
    schedulers, recipe = config.param_scheduler, config.warm_up
    assert recipe.end == schedulers[0].end
    by_epoch = schedulers[0].get('by_epoch', True)
    if by_epoch or 'max_iters' in config.train_cfg:
        assert recipe.of == length_of(path)
    for length in 1, 7, 100:
        epochs = min(5, config.train_cfg.get('max_epochs', 1))
        found = rates([dict(s) for s in schedulers], length, epochs, recipe)
        share = epochs * length * recipe.end / recipe.of
        if not by_epoch and epochs * length >= recipe.of:
            share = recipe.end
        share = round(share) if round(share) >= 2 else 0
        assert found.index(max(found)) in (share, share - 1)
        assert max(found) == pytest.approx(1.)
        assert share == 0 or found[0] < 0.2


@pytest.mark.parametrize('end', [10, 40])
def test_the_share_of_a_shorter_run(end):
    """Unless the warm-up was changed, too."""
    schedulers = copy.deepcopy(SCHEDULE)
    schedulers[0]['end'] = schedulers[1]['begin'] = end
    for epochs, expected in (20, 1), (80, 4), (800, 40), (900, 40):
        found = rates(schedulers, 3, epochs, dict(end=40, of=800))
        if end != 40:
            expected = end
        assert found.index(max(found)) in (3 * expected - 1, 3 * expected)


@pytest.mark.parametrize('by_epoch', [True, False])
def test_the_warm_up_is_a_tenth(by_epoch):
    schedulers = copy.deepcopy(SCHEDULE)
    if not by_epoch:
        for scheduler in schedulers:
            scheduler.update(by_epoch=False, convert_to_iter_based=False)
    found = rates(schedulers, 40)
    assert found.index(max(found)) == 3  # after four iterations
    assert found[-1] < 0.01
    long = rates(SCHEDULE, 2, epochs=80)
    assert long.index(max(long)) in (79, 80)  # as it was


def test_hook_in_a_run(tmp_path):
    images = save_images(tmp_path / 'images', 8)
    runner = micro_runner(
        tmp_path / 'run',
        dict(
            persistent_workers=True,
            prefetch_factor=2,
            pin_memory=True,
            dataset=dict(
                type='greenmim.ImageFolder',
                data_root=str(images[0].parent),
                pipeline=[
                    dict(type='greenmim.LoadImage'),
                    dict(type='PackInputs')
                ])),
        hooks=[dict(type='greenmim.LinkedSettingsHook')],
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=1.), accumulative_counts=4),
        auto_scale_lr=dict(enable=True, base_batch_size=32),
        param_scheduler=copy.deepcopy(SCHEDULE),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        log_level='INFO')
    runner.train()
    group, = runner.optim_wrapper.param_groups[:1]
    assert group['initial_lr'] == 0.5  # 4 images, 4 times, of 32
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    assert 'The warm-up of 40 epochs is not shorter than the run of 1' in log
    assert 'without persistent_workers and prefetch_factor' in log
    assert 'accumulative_counts=4' in log


def test_little_shared_memory(monkeypatch, tmp_path):
    warnings = []
    runner = SimpleNamespace(
        train_dataloader=SimpleNamespace(num_workers=2),
        logger=SimpleNamespace(warning=warnings.append))
    hook = linked_settings_hook.LinkedSettingsHook()
    monkeypatch.setattr(linked_settings_hook, 'SHARED_MEMORY', str(tmp_path))
    for size in 2**33, 2**26:
        monkeypatch.setattr(linked_settings_hook.shutil, 'disk_usage',
                            lambda path: SimpleNamespace(total=size))
        hook.before_train(runner)
    assert len(warnings) == 1 and '64 MiB' in warnings[0]
    assert '--shm-size' in warnings[0] and 'num_workers=0' in warnings[0]


@pytest.fixture(scope='module')
def config():
    return load(
        next(p for p in RECIPES if 'quickstart' in str(p)
             and 'swin-micro-w4' in p.stem and 'greenmim' in p.stem))


@pytest.mark.parametrize('option, meant', [
    ('model.mask_raito', 'mask_ratio'),
    ('model.backbone.img_sise', 'img_size'),
    ('train_dataloader.num_worker', 'num_workers'),
    ('train_dataloader.dataset.data_rot', 'data_root'),
    ('train_dataloader.prefetch_faktor', 'prefetch_factor'),
    ('optim_wrapper.optimizer.weight_deca', 'weight_decay'),
    ('optim_wrapper.clip_gard', 'clip_grad'),
    ('param_scheduler.0.start_facter', 'start_factor'),
    ('train_cfg.max_iter', 'max_iters'),
    ('default_hooks.leerning.interval', 'learning'),
    ('default_hooks.learning.num_image', 'num_images'),
    ('randomness.sede', 'seed'),
])  # yapf: disable
def test_a_misspelt_nested_key(config, option, meant):
    cfg = Config(copy.deepcopy(config.to_dict()))
    with pytest.raises(ValueError, match=f'did you mean {meant!r}'):
        set_options(cfg, {option: 1})


@pytest.mark.parametrize('option', [
    'model.mask_scope', 'model.backbone.with_cp', 'model.head.loss.type',
    'optim_wrapper.accumulative_counts', 'optim_wrapper.clip_grad.max_norm',
    'param_scheduler.0.convert_to_iter_based', 'default_hooks.knn.type',
    'default_hooks.checkpoint.save_best', 'default_hooks.learning.patience',
    'train_dataloader.drop_last', 'train_dataloader.dataset.lazy_init',
    'optim_wrapper.paramwise_cfg.custom_keys.gamma.decay_mult',
    'randomness.deterministic', 'env_cfg.dist_cfg.timeout',
    'model_wrapper_cfg.type', 'visualizer.vis_backends.0.type',
    'data_preprocessor.batch_augments'
])
def test_keys_that_a_config_does_not_name(config, option):
    cfg = Config(copy.deepcopy(config.to_dict()))
    set_options(cfg, {option: 1})
    node = cfg
    for key in option.split('.'):
        node = node[int(key) if key.isdigit() else key]
    assert node == 1


def test_classes_and_lists_in_the_options(config):
    """A class stands for its name; what cannot be known is no error."""
    cfg = Config(copy.deepcopy(config.to_dict()))
    hooks = cfg.default_hooks
    hooks.own = dict(type=LearningHook, interval=5)
    hooks.other = dict(type='OfAnotherPackage', interval=5)
    with pytest.raises(ValueError, match="did you mean 'num_images'"):
        set_options(cfg, {'default_hooks.own.num_image': 1})
    set_options(cfg, {'default_hooks.other.num_image': 1})
    assert cfg.default_hooks.other.num_image == 1
    with pytest.raises((KeyError, TypeError), match='param_scheduler|5'):
        set_options(cfg, {'param_scheduler.5.end': 1})


@RUNNERS.register_module()
class OwnRunner:
    """Of a config with ``runner_type``."""

    @classmethod
    def from_cfg(cls, cfg):
        return cls()


def test_a_runner_of_its_own(config):
    cfg = Config(copy.deepcopy(config.to_dict()))
    cfg.update(launcher='none', runner_type='OwnRunner')
    assert isinstance(build_runner(cfg), OwnRunner)


def test_one_line_for_a_wrong_setting(tmp_path):
    (tmp_path / 'a.txt').touch()
    for path, text in ((tmp_path, 'got the folder'),
                       (tmp_path / 'b.py', 'found no'), (tmp_path / 'a.txt',
                                                         'ends in .py')):
        with pytest.raises(SystemExit, match=text), one_line_errors():
            read_config(str(path))
    with pytest.raises(ValueError, match='folder'), one_line_errors(True):
        read_config(str(tmp_path))
    (tmp_path / 'mine.py').write_text("_base_ = ['greenmim::simmim/a.py']")
    with pytest.raises(ValueError, match='greenmim recipes --recipe NAME'):
        read_config(str(tmp_path / 'mine.py'))
    (tmp_path / 'mine.py').write_text("_base_ = ['other::a/b.py']")
    with pytest.raises(AssertionError, match='other'):
        read_config(str(tmp_path / 'mine.py'))


def test_an_error_of_a_training_step_keeps_its_traceback():

    def run_iter():
        raise ValueError('in a step')

    with pytest.raises(ValueError), one_line_errors():
        run_iter()


@pytest.mark.parametrize('value', [True, dict(backend='eager')])
def test_compile_is_refused_by_name(tmp_path, value):
    """MMEngine's setting; masks are drawn in the step that it compiles."""
    save_images(tmp_path / 'images')
    loader = dict(
        dataset=dict(
            type='greenmim.ImageFolder',
            data_root=str(tmp_path / 'images'),
            pipeline=[]))
    with pytest.raises(ValueError, match='compile_blocks=True instead'):
        micro_runner(
            tmp_path,
            loader,
            hooks=[dict(type='greenmim.LinkedSettingsHook')],
            train_cfg=dict(by_epoch=True, max_epochs=1),
            cfg=dict(compile=value))
