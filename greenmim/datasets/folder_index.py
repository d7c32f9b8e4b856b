# Copyright (c) greenmim authors. All rights reserved.
"""Keeps the list of the images below a large folder.

Listing a million files takes long on a network file system. The list of a
folder with at least :data:`LARGE` images is written to an index file, together
with the modification time of every folder in it, which changes when files are
added, removed or renamed. While no time changes, the list is read from the
index.
"""
import hashlib
import json
import os
import time
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from mmengine.logging import print_log

LARGE = 10000
"""Smallest number of images for which an index is written."""

SETTLED = 2.
"""Seconds that folders must be unchanged before an index is written, since
clocks of file systems may be this coarse."""


def list_images(root: str, extensions: Sequence[str],
                index_dir: Optional[str]) -> List[str]:
    """List the visible files with given endings, from the index if it exists.

    Returns:
        list[str]: Sorted paths, relative to ``root``.
    """
    if index_dir is None:
        return _search(root, extensions)[0]
    key = json.dumps([os.path.realpath(root), sorted(extensions)])
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = os.path.join(os.path.expanduser(index_dir), f'{name}.json')
    images = _read(path, root)
    if images is not None:
        print_log(f'Read the list of images from {path}.', logger='current')
        return images
    start = time.time()
    images, folders = _search(root, extensions)
    newest = max(folders.values(), default=0) / 1e9
    if len(images) >= LARGE and newest < start - SETTLED:
        _write(path, dict(folders=folders, images=images))
    return images


def _read(path: str, root: str) -> Optional[List[str]]:
    """The images of an index, None if it is missing, broken or outdated."""
    try:
        with open(path, encoding='ascii') as file:
            index = json.load(file)
        for folder, changed in index['folders'].items():
            if os.stat(os.path.join(root, folder)).st_mtime_ns != changed:
                return None
        return index['images']
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


def _search(root: str,
            extensions: Sequence[str]) -> Tuple[List[str], Dict[str, int]]:
    """Images and the modification times of all folders, below the root."""
    images, folders = [], {}
    prefix = len(os.path.join(root, ''))
    endings = tuple(extensions)
    for folder, names in _walk(root):
        folders[folder[prefix:]] = os.stat(folder).st_mtime_ns
        start = os.path.join(folder, '')[prefix:]
        images += [
            start + name for name in names
            if name[0] != '.' and name.lower().endswith(endings)
        ]
    return sorted(images), folders


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
