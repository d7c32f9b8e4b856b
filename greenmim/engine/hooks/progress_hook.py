# Copyright (c) greenmim authors. All rights reserved.
import sys
from typing import Optional

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import (BarColumn, MofNCompleteColumn, Progress, TextColumn,
                           TimeElapsedColumn, TimeRemainingColumn)

from greenmim.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """A live bar on a terminal; nothing where the output is a file.

    The lines of the log stay what they are.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.bar: Optional[Progress] = None

    def before_train(self, runner: Runner) -> None:
        if not (is_main_process() and sys.stderr.isatty()):
            return
        self.bar = Progress(
            TextColumn('pre-training'),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn('loss {task.fields[loss]:.4f}'),
            console=Console(stderr=True),
            redirect_stdout=False,
            redirect_stderr=False,
            transient=True)
        self.task = self.bar.add_task(
            '', total=runner.max_iters, completed=runner.iter, loss=0.)
        self.bar.start()

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        if self.bar is None:
            return
        loss = runner.message_hub.get_scalar('train/loss').current()
        self.bar.update(self.task, advance=1, loss=float(loss))

    def after_run(self, runner: Runner) -> None:
        if self.bar is not None:
            self.bar.stop()
