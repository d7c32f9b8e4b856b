# Copyright (c) greenmim authors. All rights reserved.
"""Which errors are shown in one line, for the command and all tools."""
import re
from typing import Optional


class ProcessFailed(RuntimeError):
    """A process that was started has failed, and said why."""


def one_line(error: BaseException) -> Optional[str]:
    """What an error says, where a setting or a file is wrong.

    Args:
        error (BaseException): What was raised.

    Returns:
        str: The text; None for an error of a run that has begun to train, and
        for others that need their traceback.
    """
    if isinstance(error, (ImportError, ProcessFailed)):
        return str(error)
    if _has_trained(error):
        return None
    if isinstance(error, OSError):
        return str(error)
    # MMEngine names the class that it was building.
    text = re.sub(r'^(class `\w+` in \S+: )+', '',
                  str(error.args[0] if error.args else error))
    if isinstance(error, ValueError):
        return text
    if isinstance(error, (KeyError, AssertionError, TypeError)):
        return f'{type(error).__name__}: {text}'
    return None


def _has_trained(error: BaseException) -> bool:
    """Whether an error came from a training step."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name in ('run_iter', 'run_epoch'):
            return True
        trace = trace.tb_next
    return False
