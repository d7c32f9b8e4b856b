# Copyright (c) greenmim authors. All rights reserved.
"""A labelled folder, or an archive of one, and a few of its labels."""
import random
import zipfile
from pathlib import Path
from typing import Dict, List, Optional

from mmpretrain.datasets import CustomDataset


def find_labelled_folder(path: Path, unpack_to: Path) -> Path:
    """The folder that holds train/ and test/, unpacked if in a zip archive.

    It may be at any depth.

    Raises:
        ValueError: If there is no such folder, or it has other classes in
            train/ than in test/.
    """
    top = labelled_part(unpack(path, unpack_to))
    if top is None:
        raise ValueError(
            'expected train/ and test/ with a folder for every class in '
            f'{path}, found no such pair')
    return top


def unpack(path: Path, unpack_to: Path) -> Path:
    """The folder itself, or the folder of an archive, unpacked once.

    Raises:
        ValueError: If a file is no zip archive.
    """
    if path.is_file():
        if not zipfile.is_zipfile(path):
            raise ValueError(f'expected a folder or a zip archive, but {path} '
                             'is neither')
        done = unpack_to / 'unpacked'
        if not done.exists():
            with zipfile.ZipFile(path) as archive:
                archive.extractall(unpack_to)
            done.touch()
        return unpack_to
    return path


def labelled_part(path: Path) -> Optional[Path]:
    """The folder in a folder that holds train/ and test/, if there is one.

    Raises:
        ValueError: If it has other classes in train/ than in test/.
    """
    tops = [path, *(test.parent for test in sorted(path.rglob('test')))]
    for top in tops:
        if (top / 'train').is_dir() and (top / 'test').is_dir():
            classes, others = class_names(top), class_names(top, 'test')
            if not classes or classes != others:
                raise ValueError(
                    f'expected the same class folders in train/ and test/ of '
                    f'{top}, got {classes} and {others}')
            return top.resolve()
    return None


def class_names(folder: Path, split: str = 'train') -> List[str]:
    return sorted(
        path.name for path in (folder / split).iterdir()
        if path.is_dir() and path.name[0] != '.')


def write_labels(folder: Path, per_class: Optional[int], seed: int,
                 file: Path) -> int:
    """List training images for ``CustomDataset``; return their number.

    Args:
        folder (Path): The folder that holds train/.
        per_class (int, optional): Images of every class; None for all.
        seed (int): Every seed draws others.
        file (Path): The list to write.

    Raises:
        ValueError: If a class has fewer images than asked for.
    """
    dataset = CustomDataset(str(folder), data_prefix='train')
    images: Dict[str, List[str]] = {}
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        path = Path(info['img_path']).relative_to(folder / 'train')
        images.setdefault(path.parts[0],
                          []).append(f'{path.as_posix()} {info["gt_label"]}')
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
