# Copyright (c) greenmim authors. All rights reserved.
"""The hooks that look at fixed images, in runs of MMEngine's Runner."""
import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from PIL import Image

from greenmim.engine import LearningHook, ReconstructionHook
from greenmim.registry import HOOKS
from tests.micro import micro_config, micro_runner, save_images, scalars_of


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
        **options):
    runner = micro_runner(
        work_dir,
        dict(
            dataset=dict(
                type='greenmim.ImageFolder',
                data_root=str(images),
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
    runner.logger.info = lambda text: words.append(text) or log(text)
    runner.train()
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
    file, = tmp_path.glob('best_heldout_*.pth')
    assert file.name == f'best_heldout_iter_{best}.pth'
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
    file, = tmp_path.glob('best_heldout_*.pth')
    assert file.name == 'best_heldout_iter_2.pth'


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
    dict(interval=0), dict(num_images=0), dict(batch_size=0),
    dict(num_images=1), dict(patience=0), dict(min_gain=-1)
])  # yapf: disable
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match='expected'):
        LearningHook(**options)


def test_a_single_picture_is_fine():
    assert ReconstructionHook(num_images=1).num_images == 1
