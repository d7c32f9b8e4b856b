# Copyright (c) greenmim authors. All rights reserved.
import logging
import os
import os.path as osp
import re
import zipfile
from typing import Optional

from mmengine.logging import print_log
from mmengine.runner import find_latest_checkpoint


def is_whole(path: str) -> bool:
    """Whether a checkpoint is a zip archive whose checksums all hold."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def find_latest_whole_checkpoint(folder: str) -> Optional[str]:
    """Find the newest checkpoint of a run that is not damaged.

    The log names the damaged ones that are skipped.

    Args:
        folder (str): The work folder of the run.

    Returns:
        str | None: The file, or None where the run has written none.

    Raises:
        ValueError: If all of them are damaged.
    """
    if not osp.isdir(folder):
        return None
    paths = {
        osp.join(folder, name)
        for name in os.listdir(folder)
        if re.fullmatch(r'(epoch|iter)_\d+\.pth', name)
    }
    # This one may be elsewhere: in the out_dir of the hook.
    named = find_latest_checkpoint(folder) if osp.isfile(
        osp.join(folder, 'last_checkpoint')) else None
    if named and not osp.isfile(named):
        paths.discard(named)
        if not paths:
            return named  # remote
    elif named:
        paths.add(named)
    for path in sorted(paths, key=osp.getmtime, reverse=True):
        if is_whole(path):
            return path
        print_log(
            f'The checkpoint {path} is damaged, perhaps by an interrupted '
            'copy; using the one before it.',
            logger='current',
            level=logging.WARNING)
    if paths:
        raise ValueError(
            f'expected a whole checkpoint in {folder}, but all '
            f'{len(paths)} are damaged; remove them to start from the '
            'beginning, or name another with --resume')
    return None
