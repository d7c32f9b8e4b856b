# Copyright (c) greenmim authors. All rights reserved.
"""What a run shows on the screen. Its log file has everything."""
import logging
from typing import Any

from mmengine.logging import MMLogger
from mmengine.runner import Runner


class _Screen(logging.Filter):
    """Lets warnings pass, and lines of :func:`show`.

    A user cannot act on MMEngine's warnings about its own calls.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if 'deprecated in future' in str(record.msg):
            return False
        return (record.levelno >= logging.WARNING
                or getattr(record, 'screen', False))


def show(logger: logging.Logger, text: str) -> None:
    """Log a line that is for the screen too."""
    logger.info(text, extra=dict(screen=True))


def quiet(logger: logging.Logger) -> None:
    """Keep all but warnings and lines of :func:`show` from the screen."""
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler) and not any(
                isinstance(one, _Screen) for one in handler.filters):
            handler.addFilter(_Screen())


class QuietRunner(Runner):
    """A runner that shows no environment, config and list of hooks."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger, and keep the screen short."""
        logger = super().build_logger(*args, **kwargs)
        quiet(logger)
        return logger
