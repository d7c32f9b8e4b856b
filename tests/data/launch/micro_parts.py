# Copyright (c) greenmim authors. All rights reserved.
"""What the micro config adds to make runs comparable."""
import json
import time
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from greenmim.engine import PreemptionHook
from greenmim.registry import HOOKS, TRANSFORMS


@TRANSFORMS.register_module()
class FixedMask(BaseTransform):
    """The same mask for every image."""

    def __init__(self, mask: list) -> None:
        self.mask = np.array(mask, dtype=bool)

    def transform(self, results: dict) -> dict:
        results['mask'] = self.mask
        return results


@TRANSFORMS.register_module()
class MaskByName(BaseTransform):
    """Two visible units of four; which, the number of the file says."""

    def transform(self, results: dict) -> dict:
        number = int(Path(results['img_path']).stem)
        mask = np.ones((2, 2), dtype=bool)
        mask.flat[[number % 4, (number + 1) % 4]] = False
        results['mask'] = mask
        return results


@HOOKS.register_module()
class RecordLosses(Hook):
    """Write the losses of each process, which the log has of one alone."""

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        file = Path(runner.work_dir, f'losses_{runner.rank}.txt')
        with file.open('a') as stream:
            stream.write(f'{runner.iter} {outputs["loss"].item():.9g}\n')


@HOOKS.register_module()
class Hold(Hook):
    """Wait at an iteration for as long as ``hold_N`` is in the work folder.

    A signal ends the waiting, too.
    """

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        file = Path(runner.work_dir, f'hold_{runner.iter + 1}')
        signals, = (h for h in runner.hooks if isinstance(h, PreemptionHook))
        while file.exists() and signals.received is None:
            time.sleep(0.05)


@HOOKS.register_module()
class RecordBatches(Hook):
    """Write which images and masks each process had, and what it drew from.
    """

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        samples = data_batch['data_samples']
        row = dict(
            epoch=runner.epoch,
            iteration=runner.iter,
            images=[Path(sample.img_path).name for sample in samples],
            mask_seeds=[sample.mask_seed for sample in samples],
            visible=samples[0].mask_plan.layout.visible.int().tolist(),
            step_seed=torch.initial_seed())
        file = Path(runner.work_dir, f'batches_{runner.rank}.txt')
        with file.open('a') as stream:
            stream.write(json.dumps(row) + '\n')


@HOOKS.register_module()
class RecordWeights(Hook):
    """Save the weights that each process ends with."""

    def after_train(self, runner: Runner) -> None:
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        torch.save(model.state_dict(),
                   Path(runner.work_dir, f'weights_{runner.rank}.pth'))
