# Copyright (c) greenmim authors. All rights reserved.
"""``greenmim.pretrain``, and the choices that it makes."""
import shutil

import pytest
import torch
from mmengine.config import Config

import greenmim
from greenmim.apis import pretraining, settings
from greenmim.apis.backbones import BACKBONES, find_recipe, recipe_of
from greenmim.command import main
from greenmim.engine.launch import build_model
from greenmim.errors import ProcessFailed
from tests.conftest import CHECKOUT
from tests.test_apis.conftest import PHOTOS, RUN, STEPS


def test_a_run_and_what_it_says(run, folder):
    assert run.folder == folder / RUN
    assert run.config == folder / RUN / 'config.py'
    assert run.checkpoint == folder / RUN / f'iter_{STEPS}.pth'
    assert list(run.losses) == [1, 2, 3, 4]
    assert run.loss == run.losses[4]
    assert list(run.held_out_losses) == [0, 4]
    assert run.held_out_loss == run.held_out_losses[4] > 0
    log = next(run.folder.glob('*/*.log')).read_text('utf-8')
    assert run.verdict in log and run.verdict.startswith(
        ('still improving', 'too early'))
    cfg = Config.fromfile(run.config)
    assert cfg.optim_wrapper.optimizer.eps == 1e-8
    assert cfg.train_dataloader.dataset.data_root == str(folder / PHOTOS)


@pytest.mark.slow
def test_mim_train_gives_the_same_losses(run, run_tool):
    """By the file that ``mim train greenmim`` starts.

    test_packaging.py runs the command itself, from a wheel.
    """
    run_tool(CHECKOUT / 'tools' / 'train.py', run.config, '--work-dir',
             'the same again')
    again = greenmim.read_run('the same again')
    assert again.losses == run.losses
    assert again.held_out_losses == run.held_out_losses


def test_python_has_the_same_words(run, folder, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        again = greenmim.pretrain(
            str(folder / PHOTOS),
            backbone='swin-micro',
            steps=STEPS,
            batch_size=3,
            set={'default_hooks.logger.interval': 1})
        assert again.losses == run.losses
        assert again.folder.as_posix() == 'work_dirs/swin-micro_1'
        # The last run is resumed, for the length that it was begun with.
        resumed = greenmim.pretrain(
            str(folder / PHOTOS), backbone='swin-micro', resume=True)
        assert resumed.folder == again.folder
        assert resumed.losses == run.losses
        assert Config.fromfile(resumed.config).train_cfg.max_iters == STEPS


def test_a_used_folder_is_left_alone(run, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    files = sorted(run.folder.rglob('*'))
    words = [
        'pretrain', PHOTOS, '--backbone', 'swin-micro', '--steps', '1',
        '--out', RUN
    ]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert '--resume' in error and '--overwrite' in error
    assert sorted(run.folder.rglob('*')) == files
    assert main([*words, '--resume', '--overwrite']) == 1


def test_a_run_is_resumed(run, folder, tmp_path, monkeypatch):
    copy = tmp_path / 'copy'
    shutil.copytree(run.folder, copy)
    monkeypatch.chdir(folder)
    resumed = greenmim.pretrain(
        PHOTOS,
        backbone='swin-micro',
        steps=STEPS + 2,
        out=str(copy),
        resume=True,
        set={'default_hooks.logger.interval': 1})
    assert list(resumed.losses) == [1, 2, 3, 4, 5, 6]
    assert resumed.losses[4] == run.losses[4]
    # The batch size was not given again, and the settings that were written
    # begin a new run.
    cfg = Config.fromfile(resumed.config)
    assert cfg.train_dataloader.batch_size == 3
    assert cfg.resume is cfg.overwrite is False


def test_options_change_the_config(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    trained = greenmim.pretrain(
        PHOTOS,
        backbone='convnext-micro',
        out=str(tmp_path / 'new'),
        epochs=0.5,
        image_size=96,
        batch_size=2,
        mask_ratio=0.6,
        target='hog',
        precision='bf16')
    assert list(trained.losses) == [1, 2]
    cfg = Config.fromfile(trained.config)
    assert cfg.train_dataloader.batch_size == 2 and cfg.auto_scale_lr.enable
    assert cfg.train_cfg == dict(by_epoch=False, max_iters=2)
    assert settings.image_size_of(cfg) == 96
    assert cfg.model.mask_ratio == 0.6
    assert cfg.model.head.target.type == 'greenmim.HOGTarget'
    assert cfg.model.neck.out_channels == 16 * 9 * 3


def test_weights_of_another_run(run, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    trained = greenmim.pretrain(
        PHOTOS,
        backbone='swin-micro',
        out=str(tmp_path / 'new'),
        steps=1,
        weights=RUN)
    assert trained.held_out_losses[0] == pytest.approx(run.held_out_loss)
    # On a CPU small folders are seen as a whole.
    cfg = Config.fromfile(trained.config)
    assert cfg.train_dataloader.batch_size == 6
    # The same command with `resume` continues the run, not the weights.
    resumed = greenmim.pretrain(
        PHOTOS,
        backbone='swin-micro',
        out=str(tmp_path / 'new'),
        steps=2,
        weights=RUN,
        resume=True)
    assert max(resumed.losses) == 2 and resumed.losses[1] == trained.losses[1]
    assert Config.fromfile(resumed.config).load_from == str(folder / RUN /
                                                            'iter_4.pth')


@pytest.mark.slow
def test_two_processes(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    trained = greenmim.pretrain(
        PHOTOS,
        backbone='swin-micro',
        out=str(tmp_path / 'new'),
        steps=2,
        batch_size=4,
        devices=2)
    cfg = Config.fromfile(trained.config)
    assert cfg.train_dataloader.batch_size == 2
    assert max(trained.losses) == 2


@pytest.mark.parametrize('target', settings.TARGETS)
@pytest.mark.parametrize('backbone', ['swin-micro', 'vit-micro'])
def test_targets_fit_the_decoder(target, backbone):
    cfg = recipe_of(backbone)
    settings.set_target(cfg, target)
    loss = build_model(cfg)([torch.rand(2, 3, 128, 128)], mode='loss')['loss']
    assert loss.isfinite()


@pytest.mark.parametrize('options, message', [
    (dict(steps=1, epochs=1), 'one of epochs, steps and hours'),
    (dict(steps=0), '--steps above 0, got 0'),
    (dict(epochs=-1.), '--epochs above 0'),
    (dict(hours=-1.), '--hours above 0'),
    (dict(steps=1, batch_size=0), '--batch-size above 0'),
    (dict(steps=1, batch_size='many'), "a number or 'auto', got 'many'"),
    (dict(steps=1, devices=0), '--devices above 0'),
    (dict(steps=1, mask_ratio=75.), 'such as 0.75, got 75'),
    (dict(backbone='swin-tinny'), "did you mean 'swin-tiny'"),
    (dict(recipe='nothing'), 'the name of a recipe'),
    (dict(steps=1, image_size=100), 'multiple of the mask unit, 32'),
    (dict(steps=1, devices=2, batch_size=3), 'multiple of 2 devices'),
    (dict(steps=1, set={'model.mask_ration': 1}), 'mask_ratio'),
    (dict(steps=1, weights='nothing'), 'no nothing'),
    (dict(steps=1, precision='fp16'), 'fp32 or bf16 without a GPU'),
])
def test_what_is_refused(folder, tmp_path, options, message):
    out = tmp_path / 'new'
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        greenmim.pretrain(
            str(folder / PHOTOS),
            out=str(out),
            **dict(dict(backbone='swin-micro', batch_size=2), **options))
    assert not out.exists()


def test_epochs_become_iterations():
    """The curve of the learning rate keeps its shape."""
    for name in ('swin-base', 'swin-micro'):
        cfg = recipe_of(name)
        settings.set_steps(cfg, 1000)
        warmup, cosine = cfg.param_scheduler
        assert warmup.end == cosine.begin == 50
        assert not warmup.by_epoch and 'convert_to_iter_based' not in warmup
    cfg = Config.fromfile(
        find_recipe(
            'greenmim_swin-base-w7_8xb256-amp-coslr-400e_in1k-128to224px'))
    settings.set_steps(cfg, 1000)
    assert cfg.default_hooks.image_size.milestones == [500, 750]
    assert cfg.default_hooks.image_size.by_epoch is False
    cfg = Config.fromfile(
        find_recipe('simmim_swin-base-w6_8xb256-amp-steplr-800e_in1k-192px'))
    settings.set_steps(cfg, 16)
    assert cfg.param_scheduler[0].milestones == [14]  # and no warm-up


def test_small_folders_are_seen_more_often():
    epochs = [settings.usual_epochs(10**power) for power in range(1, 7)]
    assert epochs == [1600, 1600, 1600, 800, 400, 200]


def test_hours_and_batch_are_measured(folder, tmp_path, monkeypatch, capsys):
    """By the command ``greenmim forecast``, in a process of its own."""
    monkeypatch.chdir(folder)
    trained = greenmim.pretrain(
        PHOTOS,
        backbone='swin-micro',
        out=str(tmp_path / 'new'),
        batch_size='auto',
        hours=1e-9)
    cfg = Config.fromfile(trained.config)
    assert cfg.train_dataloader.batch_size == 6  # no more than there are
    assert cfg.train_cfg.max_iters == 1
    assert 'GiB of memory' in capsys.readouterr().out


@pytest.mark.parametrize('found, images, batch', [
    (100, 1000, 96),
    (100, 30, 24),
    (6, 1000, 6),
    (None, 1000, 0),
])
def test_the_largest_batch(monkeypatch, found, images, batch):
    monkeypatch.setattr(pretraining, '_forecast',
                        lambda *args: dict(largest_batch_size=found))
    cfg = recipe_of('swin-micro')
    if batch:
        assert pretraining._largest_batch(cfg, None, images) == batch
    else:
        with pytest.raises(ValueError, match='give --batch-size'):
            pretraining._largest_batch(cfg, None, images)


def test_the_batch_on_a_gpu(folder, tmp_path, monkeypatch):
    """That of the recipe, if it fits."""
    recipe = recipe_of('swin-micro')
    recipe.auto_scale_lr.base_batch_size = 4
    recipe.dump(tmp_path / 'recipe.py')
    monkeypatch.setattr(pretraining, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(pretraining, '_forecast',
                        lambda *args: dict(largest_batch_size=64))
    trained = greenmim.pretrain(
        str(folder / PHOTOS),
        recipe=str(tmp_path / 'recipe.py'),
        out=str(tmp_path / 'new'),
        steps=1,
        precision='fp32')
    assert Config.fromfile(trained.config).train_dataloader.batch_size == 4


@pytest.mark.parametrize('code, message', [
    ('print("\\n".join(map(str, range(50)))); exit(3)',
     r'code 3:\n30\n31\n[\d\n]+\n49$'),
    ('import os; print("big", flush=True); os.kill(os.getpid(), 9)',
     r'-9 \(killed, for lack of memory\?\):\nbig$'),
])
def test_a_measurement_that_fails(code, message):
    """The end of what it printed is shown."""
    with pytest.raises(ProcessFailed, match=message):
        pretraining._run(['-c', code])


@pytest.mark.parametrize('bf16, precision, options', [
    (True, 'bf16', dict(type='AmpOptimWrapper', dtype='bfloat16')),
    (False, 'fp16', dict(type='AmpOptimWrapper')),
])
def test_the_precision_on_a_gpu(monkeypatch, bf16, precision, options):
    monkeypatch.setattr(settings, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda: bf16)
    cfg = recipe_of('swin-base')
    optimizer = cfg.optim_wrapper.optimizer
    assert settings.set_precision(cfg, 'auto') == precision
    found = {
        name: cfg.optim_wrapper.get(name)
        for name in ('type', 'dtype', 'loss_scale')
    }
    assert found == dict(dict(dtype=None, loss_scale=None), **options)
    assert cfg.optim_wrapper.optimizer == optimizer


def test_recipes_that_do_not_have_what_is_set():
    cfg = recipe_of('swin-micro')
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline[:] = [one for one in pipeline if 'Crop' not in one['type']]
    with pytest.raises(ValueError, match='a transform that crops'):
        settings.set_image_size(cfg, 96)
    cfg.model.head = dict(type='greenmim.SumOfHeads', heads=[cfg.model.head])
    with pytest.raises(ValueError, match='single target.*SumOfHeads'):
        settings.set_target(cfg, 'hog')


def test_every_backbone_has_a_recipe_that_can_be_set():
    for name in BACKBONES:
        cfg = recipe_of(name)
        settings.set_image_size(cfg, 128)
        settings.set_steps(cfg, 10)
        settings.set_batch_size(cfg, 4, 1)
        assert settings.set_precision(cfg, 'fp32') == 'fp32'
