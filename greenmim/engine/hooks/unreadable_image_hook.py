# Copyright (c) greenmim authors. All rights reserved.
import os.path as osp
from typing import Dict, Optional

from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from greenmim.models.masking.data_samples import read_skipped_images
from greenmim.registry import HOOKS


@HOOKS.register_module()
class UnreadableImageHook(Hook):
    """Report the files that :class:`ImageFolder` and others skipped.

    Images are decoded in worker processes, which name the skipped files in
    the meta information ``skipped_images`` of the samples that replace them.
    There is one warning per file. At the end of training the files that all
    processes skipped are counted and listed, completely in
    ``skipped_images.txt`` beside the log.

    Args:
        max_listed (int): How many files the log lists. Defaults to 20.
    """

    def __init__(self, max_listed: int = 20) -> None:
        self.max_listed = max_listed
        self.skipped: Dict[str, str] = {}

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        for sample in (data_batch or {}).get('data_samples', []):
            for path, reason in read_skipped_images(sample).items():
                if path not in self.skipped:
                    self.skipped[path] = reason
                    runner.logger.warning(f'Skipped: {reason}')

    def after_train(self, runner: Runner) -> None:
        skipped: Dict[str, str] = {}
        for part in all_gather_object(self.skipped):
            skipped.update(part)
        if not skipped or not is_main_process():
            return
        reasons = [skipped[path] for path in sorted(skipped)]
        filename = osp.join(runner.log_dir, 'skipped_images.txt')
        with open(filename, 'w', encoding='utf-8') as file:
            file.write('\n'.join(reasons) + '\n')
        listed = '\n'.join(reasons[:self.max_listed])
        if len(reasons) > self.max_listed:
            listed += f'\n... and {len(reasons) - self.max_listed} more'
        runner.logger.warning(
            f'{len(reasons)} unreadable images were skipped and replaced by '
            f'others (all of them are listed in {filename}):\n{listed}')
