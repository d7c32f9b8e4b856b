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
    """Find the checkpoint of a run to resume from.

    This is the one that the file ``last_checkpoint`` names. Where it is
    damaged or missing, the log says so, and the newest other one that is not
    damaged is found.

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
    # The one named may be elsewhere: in the out_dir of the hook.
    named = find_latest_checkpoint(folder) if osp.isfile(
        osp.join(folder, 'last_checkpoint')) else None
    if named and not osp.isfile(named):
        # The folder was moved, or named relative to another one.
        moved = osp.join(folder, osp.basename(named))
        if moved in paths:
            named = moved
        elif not paths:
            return named  # remote
        else:
            _warn(f'{folder}/last_checkpoint names {named}, which is missing; '
                  'using the newest checkpoint of the folder.')
            named = None
    if named:
        paths.add(named)
    newest = sorted(paths, key=osp.getmtime, reverse=True)
    for path in sorted(newest, key=lambda path: path != named):
        if is_whole(path):
            if path == named and path != newest[0]:
                _warn(f'Using {path}, which last_checkpoint names, although '
                      f'{newest[0]} is newer; resume from that with '
                      f'--resume {newest[0]}.')
            return path
        _warn(f'The checkpoint {path} is damaged, perhaps by an interrupted '
              'copy; using the one before it.')
    if paths:
        raise ValueError(
            f'expected a whole checkpoint in {folder}, but all '
            f'{len(paths)} are damaged; remove them to start from the '
            'beginning, or name another with --resume')
    return None


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)
