# Copyright (c) greenmim authors. All rights reserved.
"""Keeps the list of the images below a large folder.

Listing a million files takes long on a network file system. The list of a
folder with at least :data:`LARGE` images is written to an index file, together
with the modification time of every folder in it, which changes when files are
added, removed or renamed. While no time changes, the list is read from the
index. It also has the numbers of the other files; an index of an earlier
version, which lacks them, is rebuilt.
"""
import hashlib
import json
import os
import time
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from mmengine.logging import print_log

from .file_kinds import SIGNATURE, FileChoice

LARGE = 10000
"""Smallest number of images for which an index is written."""

SETTLED = 2.
"""Seconds that folders must be unchanged before an index is written, since
clocks of file systems may be this coarse."""


def list_images(
        root: str,
        extensions: Sequence[str],
        index_dir: Optional[str],
        by_signature: bool = False) -> Tuple[List[str], Dict[str, int]]:
    """List the visible images below a folder, from the index if it exists.

    Args:
        root (str): The folder.
        extensions (Sequence[str]): Endings of images, in lower case.
        index_dir (str, optional): Where the index is, None for nowhere.
        by_signature (bool): Whether files without an ending are images if
            their first bytes say so. Defaults to False.

    Returns:
        tuple: Sorted paths, relative to ``root``, and how many files of each
        ending are left out.
    """
    options = extensions, by_signature
    if index_dir is None:
        return _search(root, *options)[:2]
    # Without by_signature the name is that of earlier versions, whose index
    # is replaced.
    parts = [os.path.realpath(root), sorted(extensions)]
    key = json.dumps(parts + ['by_signature'] * by_signature)
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = os.path.join(os.path.expanduser(index_dir), f'{name}.json')
    index = _read(path, root)
    if index is not None:
        print_log(f'Read the list of images from {path}.', logger='current')
        return index['images'], index['left_out']
    start = time.time()
    images, left_out, folders = _search(root, *options)
    newest = max(folders.values(), default=0) / 1e9
    if len(images) >= LARGE and newest < start - SETTLED:
        _write(path, dict(folders=folders, images=images, left_out=left_out))
    return images, left_out


def _read(path: str, root: str) -> Optional[dict]:
    """An index; None if it is missing, broken, outdated or of old."""
    try:
        with open(path, encoding='ascii') as file:
            index = json.load(file)
        for folder, changed in index['folders'].items():
            if os.stat(os.path.join(root, folder)).st_mtime_ns != changed:
                return None
        return dict(images=index['images'], left_out=index['left_out'])
    except (OSError, ValueError, KeyError):
        return None


def _write(path: str, index: dict) -> None:
    temporary = f'{path}.{os.getpid()}'  # other processes may write, too
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, 'w', encoding='ascii') as file:
            json.dump(index, file)
        os.replace(temporary, path)
    except OSError as error:
        print_log(
            f'The list of images could not be written to {path}: {error}. The '
            'next run searches the folder again; set `index_dir` of the '
            'dataset to a writable folder, or to None.',
            logger='current')


def _search(
        root: str, extensions: Sequence[str], by_signature: bool
) -> Tuple[List[str], Dict[str, int], Dict[str, int]]:
    """Images, numbers of other files, modification times of all folders."""
    images, folders = [], {}
    prefix = len(os.path.join(root, ''))
    choice = FileChoice(tuple(extensions), by_signature)
    for folder, names in _walk(root):
        folders[folder[prefix:]] = os.stat(folder).st_mtime_ns
        start = os.path.join(folder, '')
        for name in names:
            if name[0] == '.':
                continue
            taken = choice.by_name(name)
            if taken is None:
                taken = choice.by_head(_head(start + name))
            if taken:
                images.append((start + name)[prefix:])
    return sorted(images), dict(choice.left_out), folders


def _head(path: str) -> bytes:
    try:
        with open(path, 'rb') as file:
            return file.read(SIGNATURE)
    except OSError:
        return b''


def _walk(root: str) -> Iterator[Tuple[str, List[str]]]:
    """Visible folders and their files; links are followed, cycles are not."""
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        identity = os.path.realpath(folder)
        if identity in seen:
            subfolders.clear()
            continue
        seen.add(identity)
        subfolders[:] = sorted(d for d in subfolders if d[0] != '.')
        yield folder, names
