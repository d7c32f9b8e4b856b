# Copyright (c) greenmim authors. All rights reserved.
import atexit
import logging
import sys
from typing import Any, List, Optional, TextIO, Tuple

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import (BarColumn, MofNCompleteColumn, Progress, TextColumn,
                           TimeElapsedColumn, TimeRemainingColumn)

from greenmim.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows a progress bar on a terminal, and nothing if output is a file.

    Log lines are unchanged and appear above the bar.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.bar: Optional[Progress] = None
        self._handlers: List[Tuple[logging.StreamHandler, TextIO]] = []

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
            redirect_stdout=sys.stdout.isatty(),
            transient=True)
        self.task = self.bar.add_task(
            '', total=runner.max_iters, completed=runner.iter, loss=0.)
        self.bar.start()
        # Otherwise the cursor stays hidden after an error.
        atexit.register(self.close)
        # Log handlers write to the terminal; let them write above the bar.
        for handler in runner.logger.handlers:
            stream = getattr(handler, 'stream', None)
            if stream is not None and stream.isatty():
                self._handlers.append((handler, stream))
                handler.setStream(sys.stderr)

    def after_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        if self.bar is None:
            return
        loss = runner.message_hub.get_scalar('train/loss').current()
        self.bar.update(self.task, advance=1, loss=float(loss))

    def after_run(self, runner: Runner) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is None:
            return
        for handler, stream in self._handlers:
            handler.setStream(stream)
        self._handlers = []
        self.bar.stop()
        self.bar = None
        atexit.unregister(self.close)
