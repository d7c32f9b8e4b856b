# Copyright (c) greenmim authors. All rights reserved.
"""What the micro config adds to make runs comparable."""
from pathlib import Path
from typing import Optional

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.hooks import Hook
from mmengine.runner import Runner

from greenmim.registry import HOOKS, TRANSFORMS


@TRANSFORMS.register_module()
class FixedMask(BaseTransform):
    """The same mask for every image."""

    def __init__(self, mask: list) -> None:
        self.mask = np.array(mask, dtype=bool)

    def transform(self, results: dict) -> dict:
        results['mask'] = self.mask
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
