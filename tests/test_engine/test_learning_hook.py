# Copyright (c) greenmim authors. All rights reserved.
"""The hooks that look at fixed images, in runs of MMEngine's Runner."""
import copy
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.hooks import Hook
from mmpretrain.datasets import PackInputs
from PIL import Image

from greenmim.datasets import ImageFolder, LoadImage, fixed_batches
from greenmim.engine import LearningHook, MeasuringHook, ReconstructionHook
from greenmim.engine.launch import keep_held_out
from greenmim.evaluation import held_out_loss
from greenmim.models.masking.data_samples import read_plan, single_view
from greenmim.registry import HOOKS
from tests.micro import (PREPROCESSOR, micro_config, micro_model, micro_runner,
                         save_images, scalars_of)
from tests.recipes import find, load


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Twelve images of a few smooth colours."""
    root = tmp_path_factory.mktemp('images')
    save_images(root, 12, cells=3)
    return root


@HOOKS.register_module()
class ConstantFeatures(Hook):
    """Make the features constant after some iterations."""

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        if runner.iter == 2:
            norm = runner.model.backbone.norm3
            norm.weight.data.zero_()
            norm.bias.data.fill_(1.)
            for group in runner.optim_wrapper.param_groups:
                group['lr'] = 0.


def run(work_dir,
        images,
        hooks,
        max_iters,
        lr=1e-3,
        paramwise=None,
        held_out=0,
        **options):
    runner = micro_runner(
        work_dir,
        dict(
            dataset=dict(
                type='greenmim.ImageFolder',
                data_root=str(images),
                held_out=held_out,
                pipeline=[
                    dict(type='greenmim.LoadImage'),
                    dict(type='RandomFlip', prob=.5),
                    dict(type='PackInputs')
                ]),
            sampler=dict(type='InfiniteSampler', shuffle=True)),
        hooks,
        dict(
            backbone=dict(micro_config()['backbone'], drop_path_rate=.2),
            head=dict(type='greenmim.GreenMIMHead', norm_pix=False)),
        dict(interval=4, by_epoch=False),
        train_cfg=dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=lr), paramwise_cfg=paramwise),
        visualizer=dict(
            type='UniversalVisualizer',
            vis_backends=[dict(type='LocalVisBackend')]),
        **options)
    words = []
    log = runner.logger.info
    runner.logger.info = (
        lambda text, **options: words.append(text) or log(text, **options))
    runner.train()
    runner.words = words
    runner.verdicts = [
        text.split(': ', 1)[1].split(' (')[0] for text in words
        if text.startswith('Learning after')
    ]
    return runner


LEARNING = dict(
    type='greenmim.LearningHook', interval=2, num_images=6, batch_size=4,
    patience=2)  # yapf: disable
PICTURES = dict(type='greenmim.ReconstructionHook', interval=3, num_images=3)


def figures(work_dir):
    return {
        row['step']: {
            k.split('/')[1]: v
            for k, v in row.items() if '/' in k
        }
        for row in scalars_of(work_dir) if 'learning/loss' in row
    }


def test_learning_run(tmp_path, images):
    hooks = [dict(hook, interval=4) for hook in (LEARNING, PICTURES)]
    runner = run(tmp_path, images, hooks, 14)
    assert runner.verdicts[0] == 'too early to tell'
    assert runner.verdicts[1:] == ['still improving'] * 4
    written = figures(tmp_path)
    assert list(written) == [0, 4, 8, 12, 14]
    losses = [written[step]['loss'] for step in written]
    assert losses[-1] < .98 * losses[0]
    assert 'change' not in written[0] and written[4]['change'] > 1e-4
    assert 1 < written[14]['rank'] <= 5 and 0 < written[14]['spread'] < 1

    # The best weights are those of the lowest loss, and no other file stays.
    best = min(written, key=lambda step: written[step]['loss'])
    file, = tmp_path.glob('best_training_*.pth')
    assert file.name == f'best_training_iter_{best}.pth'
    checkpoint = torch.load(file, weights_only=True)
    assert 'optimizer' not in checkpoint
    if best == 14:
        for name, tensor in runner.model.state_dict().items():
            assert torch.equal(tensor, checkpoint['state_dict'][name])

    pictures = sorted(p.name for p in tmp_path.rglob('reconstruction_*.png'))
    assert pictures == [f'reconstruction_{i}.png' for i in (0, 12, 14, 4, 8)]
    sheet = [
        np.asarray(Image.open(next(tmp_path.rglob(name))))
        for name in (pictures[0], pictures[2])
    ]
    # Three images of 64 pixels; input and masked input stay, the rest not.
    assert sheet[0].shape[0] > 3 * 72
    assert np.array_equal(sheet[0][20:84, :144], sheet[1][20:84, :144])
    assert not np.array_equal(sheet[0], sheet[1])


def test_training_goes_on_as_without_the_hooks(tmp_path, images):
    weights = []
    for name, hooks in ('with', [LEARNING, PICTURES]), ('without', []):
        runner = run(tmp_path / name, images, hooks, 5)
        weights.append(runner.model.state_dict())
        assert all(module.training for module in runner.model.modules())
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


@pytest.mark.parametrize('frozen', [
    dict(lr=0.),
    dict(paramwise=dict(custom_keys=dict(backbone=dict(lr_mult=0.)))),
], ids=['all', 'encoder'])  # yapf: disable
def test_frozen_random_encoder_is_flat(tmp_path, images, frozen):
    runner = run(tmp_path, images, [LEARNING], 8, **frozen)
    assert runner.verdicts[-2:] == ['flat', 'flat']


def test_collapsed_encoder(tmp_path, images):
    runner = run(tmp_path, images,
                 [LEARNING, dict(type='greenmim.ConstantFeatures')], 6)
    assert runner.verdicts[-2:] == ['collapsing', 'collapsing']
    assert 'collapsing' not in runner.verdicts[:-2]
    assert figures(tmp_path)[6]['rank'] == 0
    # Never kept as the best
    file, = tmp_path.glob('best_training_*.pth')
    assert file.name == 'best_training_iter_2.pth'


def test_resumed_run_goes_on_with_its_figures(tmp_path, images):
    run(tmp_path, images, [LEARNING], 4, lr=0.)
    runner = run(tmp_path, images, [LEARNING], 8, lr=0., resume=True)
    # The change since the interruption is not known, the loss is.
    assert runner.verdicts == ['flat', 'flat']
    assert list(figures(tmp_path)) == [0, 2, 4, 6, 8]
    history = runner.message_hub.get_scalar('learning/loss').data[0]
    assert len(history) == 5


def test_given_folder_and_default_interval(tmp_path, images):
    other = tmp_path / 'other'
    other.mkdir()
    for file in list(images.iterdir())[:3]:
        Image.open(file).transpose(Image.Transpose.ROTATE_90).save(other /
                                                                   file.name)
    hook = dict(LEARNING, interval=None, data_root=str(other))
    runner = run(tmp_path / 'run', images, [hook], 12, lr=0.)
    hook, = [h for h in runner.hooks if isinstance(h, LearningHook)]
    assert len(hook.batches) == 1 and len(hook.batches[0]['inputs']) == 3
    assert list(figures(tmp_path / 'run')) == [0, 10, 12]


@pytest.mark.parametrize('options', [
    dict(interval=0), dict(num_images=-1), dict(batch_size=0),
    dict(num_images=1), dict(patience=0), dict(min_gain=-1)
])  # yapf: disable
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match='expected'):
        LearningHook(**options)


def test_a_single_picture_is_fine():
    assert ReconstructionHook(num_images=1).num_images == 1


def test_held_out_images_are_drawn_and_never_trained_on(tmp_path, images):
    """Through a resumption, whose picture has the predictions before it."""
    hooks = [
        dict(LEARNING, num_images=None),
        dict(type='greenmim.LearningPictureHook', num_shown=2)
    ]
    runner = run(tmp_path, images, hooks, 8, held_out=4)
    expected = sorted(map(str, images.iterdir()))[::3]
    for hook in runner.hooks:
        if isinstance(hook, MeasuringHook):
            assert expected == [
                sample.img_path for batch in hook.batches
                for sample in batch['data_samples']
            ]
    dataset = runner.train_dataloader.dataset
    trained = [dataset.get_data_info(i)['img_path'] for i in range(8)]
    assert len(dataset) == 8 and not set(trained) & set(expected)

    file, = tmp_path.glob('best_*.pth')
    assert file.name.startswith('best_heldout_iter_')
    log = '\n'.join(runner.words)
    assert 'Held-out loss' in log and 'Training loss' not in log
    info = runner.message_hub.runtime_info
    assert info['verdict_images'] == '4 held-out images'
    found = info['reconstruction']
    assert list(found['model']) == ['0 %', '25 %', '50 %', '100 %']
    assert found['model']['100 %'] < found['model']['0 %']
    assert f'{found["model"]["100 %"]:.3f} for the model' in found['sentence']
    whole = np.asarray(Image.open(tmp_path / 'learning.png'))
    # Eight columns of images of 64 pixels, drawn twice as large, two rows
    assert whole.shape[1] == 8 + 8 * (128 + 8)
    columns = [whole[20:148, 8 + i * 136:136 + i * 136] for i in range(8)]
    assert not np.array_equal(columns[4], columns[7])

    half = tmp_path / 'half'
    half.mkdir()
    shutil.copy(tmp_path / 'iter_4.pth', half)
    (half / 'last_checkpoint').write_text(str(half / 'iter_4.pth'))
    run(half, images, hooks, 8, held_out=4, resume=True)
    again = np.asarray(Image.open(half / 'learning.png'))
    width = 8 + 7 * 136  # all columns but the last one
    assert np.array_equal(again[:284, :width], whole[:284, :width])


def test_a_run_goes_on_with_the_images_it_held_out(tmp_path, images):
    run(tmp_path, images, [LEARNING], 4, held_out=4)
    with pytest.raises(ValueError, match='expected 4 images held out'):
        run(tmp_path, images, [LEARNING], 8, resume=True)


def test_no_images_switch_it_off(tmp_path, images):
    runner = run(tmp_path, images, [dict(LEARNING, num_images=0)], 4)
    assert not runner.verdicts and not figures(tmp_path)
    assert not list(tmp_path.glob('best_*.pth'))


@pytest.mark.parametrize('norm_pix', [True, False])
def test_nothing_is_explained_by_the_mean_target(tmp_path, images, norm_pix):
    """0 % is the constant prediction, 100 % the right one."""
    model = micro_model(
        head=dict(type='greenmim.GreenMIMHead', norm_pix=norm_pix),
        data_preprocessor=PREPROCESSOR)
    folder = ImageFolder(str(images), [LoadImage(), PackInputs()])
    batches = fixed_batches(folder, default_collate, model.mask_planner, 6, 4)
    targets, visible = [], []
    for batch in batches:
        target = model.head.construct_target(
            single_view(model.data_preprocessor(batch)['inputs']))
        layout = read_plan(batch['data_samples']).layout
        shown = layout.visible.flatten(1).expand(target.shape[:2])
        targets.append(target)
        visible.append(target[shown])
    mean = torch.cat(visible).mean(0)
    model.decode = lambda encoded: mean.expand(len(encoded.latent), 4, -1)
    loss, _, ignorant = held_out_loss(model, batches)
    assert loss == pytest.approx(ignorant, rel=1e-5)
    iterator = iter(targets)
    model.decode = lambda encoded: next(iterator)
    loss, _, ignorant = held_out_loss(model, batches)
    assert loss == 0 and ignorant > 0


@pytest.mark.parametrize('before, resume, expected', [
    (None, True, 0),
    (5, True, 5),
    (None, False, 'auto'),
], ids=['of an earlier version', 'resumed', 'new'])  # yapf: disable
def test_a_resumed_run_keeps_its_images(tmp_path, before, resume, expected):
    """Those of the config in its folder, which may know of none held out."""
    cfg = copy.deepcopy(
        load(find('greenmim_swin-micro-p2_1xb16-coslr-1800i_folder-112px')))
    earlier = copy.deepcopy(cfg)
    dataset = earlier.train_dataloader.dataset
    dataset.pop('held_out')
    if before is not None:
        dataset.held_out = before
    earlier.dump(tmp_path / Path(cfg.filename).name)
    cfg.update(work_dir=str(tmp_path), resume=resume)
    keep_held_out(cfg)
    assert cfg.train_dataloader.dataset.held_out == expected


def test_the_best_weights_need_a_hook_that_saves():
    with pytest.raises(ValueError, match='SafeCheckpointHook'):
        LearningHook().before_train(SimpleNamespace(hooks=[]))
