# Copyright (c) greenmim authors. All rights reserved.
"""A fine-tuning by its recipe, resumed in the middle of an epoch."""
import shutil
import uuid

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tests.conftest import CHECKOUT
from tests.micro import SWIN_ARCH, save_images

CONFIGS = CHECKOUT / 'configs' / 'benchmarks' / 'classification'


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Two classes of five images, and a run that nothing interrupts."""
    tmp_path = tmp_path_factory.mktemp('finetuning')
    images, work_dir = tmp_path / 'images', tmp_path / 'whole'
    for seed, label in enumerate('ab'):
        save_images(images / label, 5, (60, 80), seed=seed)
    return images, work_dir, finetune(images, work_dir, 1)


class Losses(Hook):

    def __init__(self):
        self.seen = {}

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.seen[runner.iter] = outputs['loss'].item()


def finetune(images, work_dir, workers, resume=False):
    """Five iterations of two images an epoch, two epochs; their losses.

    MixUp, CutMix, RandAugment, RandomErasing and drop path are the recipe's.
    """
    cfg = Config.fromfile(CONFIGS /
                          'swin-tiny-w7_8xb96-amp-coslr-100e_in1k.py')
    loader = cfg.train_dataloader
    loader.dataset.update(data_root=str(images), data_prefix='')
    loader.dataset.pipeline[1].scale = 64
    loader.update(
        batch_size=2, num_workers=workers, persistent_workers=workers > 0)
    cfg.model.backbone.update(
        arch=SWIN_ARCH,
        img_size=64,
        window_size=2,
        init_cfg=None,
        drop_path_rate=0.3)
    cfg.model.head.update(num_classes=2, in_channels=64)
    cfg.data_preprocessor.num_classes = 2
    cfg.optim_wrapper.update(type='OptimWrapper')
    cfg.train_cfg.update(max_epochs=2, val_interval=9)
    cfg.param_scheduler[0].end = cfg.param_scheduler[1].begin = 1
    cfg.default_hooks.checkpoint.update(
        by_epoch=False, interval=3, max_keep_ckpts=9, save_best=None)
    cfg.update(
        work_dir=str(work_dir),
        resume=resume,
        log_level='WARNING',
        val_dataloader=None,
        val_cfg=None,
        val_evaluator=None,
        test_dataloader=None,
        test_cfg=None,
        test_evaluator=None,
        experiment_name=uuid.uuid4().hex)
    cfg.train_cfg.pop('val_interval')
    runner = Runner.from_cfg(cfg)
    losses = Losses()
    runner.register_hook(losses)
    runner.train()
    return losses.seen


@pytest.mark.parametrize('step, workers', [(3, 0), (6, 2)])
def test_the_losses_are_equal_to_the_last_bit(whole, step, workers):
    """Resumed in either epoch, with another number of workers."""
    images, work_dir, expected = whole
    assert list(expected) == list(range(10))
    assert len(set(expected.values())) == 10
    resumed = work_dir.with_name(f'resumed{step}')
    resumed.mkdir()
    shutil.copy(work_dir / f'iter_{step}.pth', resumed)
    found = finetune(images, resumed, workers, resume=True)
    assert found == {i: expected[i] for i in range(step, 10)}
