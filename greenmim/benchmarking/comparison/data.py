# Copyright (c) greenmim authors. All rights reserved.
"""A labelled folder, or an archive of one, and a few of its labels."""
import os
import random
import zipfile
from pathlib import Path
from typing import Callable, Dict, List, Optional, Union

from greenmim.datasets import LabelledFolder
from greenmim.datasets.labelled_folder import class_folders, find_parts


def find_labelled_folder(path: Path, unpack_to: Path) -> Path:
    """The folder with labels, unpacked if in a zip archive; or the list.

    It may be at any depth.

    Raises:
        ValueError: If there is no such folder, or it has other classes in
            train/ than in test/.
    """
    unpacked = unpack(path, unpack_to)
    top = labelled_part(unpacked)
    if top is None and not find_parts(unpacked):  # with train/ alone: an error
        top = unpacked
        while len(class_folders(top)) == 1:
            top /= class_folders(top)[0]
        if not class_folders(top):
            raise ValueError(
                'expected train/ and test/ with a folder for every class in '
                f'{path}, or just these folders, found neither')
    assert top is not None
    return top.resolve()


def unpack(path: Path, unpack_to: Path) -> Path:
    """The folder or list itself, or the folder of an archive, unpacked once.

    Raises:
        ValueError: If a file is no zip archive.
    """
    if path.is_file() and path.suffix != '.txt':
        if not zipfile.is_zipfile(path):
            raise ValueError(f'expected a folder, a zip archive or a list, '
                             f'but {path} is neither')
        done = unpack_to / 'unpacked'
        if not done.exists():
            with zipfile.ZipFile(path) as archive:
                archive.extractall(unpack_to)
            done.touch()
        return unpack_to
    return path


def labelled_part(path: Path) -> Optional[Path]:
    """The list, or the folder in a folder that holds train/ and test/.

    Raises:
        ValueError: If it has other classes in train/ than in test/.
    """
    if path.is_file():
        return path.resolve()
    tops = {
        part.parent
        for pattern in ('test', 'val', 'test.txt', 'val.txt')
        for part in path.rglob(pattern)
    }
    for top in sorted(tops):
        if find_parts(top):
            return top.resolve()
    return None


def write_labels(folder: Path,
                 per_class: Optional[int],
                 seed: int,
                 file: Path,
                 load: Union[dict, Callable, None] = None) -> int:
    """List training images that can be read; return their number.

    Args:
        folder (Path): The labelled images, see :class:`LabelledFolder`.
        per_class (int, optional): Images of every class; None for all.
        seed (int): Every seed draws others.
        file (Path): The list to write, with paths from ``path_prefix``.
        load (dict | Callable, optional): The transform that loads an image.

    Raises:
        ValueError: If a class has fewer images than asked for.
    """
    dataset = LabelledFolder(
        str(folder), [load or dict(type='greenmim.LoadImage')],
        'train',
        test_mode=True)
    classes = dataset.CLASSES
    images: Dict[str, List[str]] = {name: [] for name in classes}
    top = folder / path_prefix(folder)
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        path = Path(os.path.relpath(info['img_path'], top)).as_posix()
        images[classes[info['gt_label']]].append(f'{path}\t{info["gt_label"]}')
    generator = random.Random(seed)
    lines = []
    for name, of_class in images.items():
        number = len(of_class) if per_class is None else per_class
        if number > len(of_class):
            raise ValueError(f'expected at least {number} images of class '
                             f'{name!r}, found {len(of_class)}')
        lines += generator.sample(of_class, number)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return len(lines)


def path_prefix(folder: Path) -> str:
    """The folder in which training images are listed: train/, if it is one."""
    train = find_parts(folder).get('train')
    return 'train' if train is not None and train.is_dir() else ''
