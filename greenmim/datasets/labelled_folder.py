# Copyright (c) greenmim authors. All rights reserved.
"""Labelled images in one of the usual layouts, for all tools."""
import logging
import os
from collections import Counter
from pathlib import Path
from typing import (Any, Callable, Dict, Iterable, List, Optional, Sequence,
                    Tuple, Union)

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset
from torch import Generator
from torch.utils.data import DataLoader, Dataset

from greenmim.registry import DATASETS
from .image_folder import ImageFolder
from .transforms import UnreadableImageError

# Without a part to validate on, every n-th image of a class is held out.
HELD_OUT = 5

# The names of parts, by preference.
PARTS = dict(train=('train', ), val=('val', 'test'), test=('test', 'val'))

CHECKED = 256  # smallest number of images that several processes check
LISTED = 20

Labels = List[Tuple[str, int]]  # paths and classes


@DATASETS.register_module(name=['LabelledFolder', 'SeededCustomDataset'])
class LabelledFolder(ImageFolder, BaseDataset):
    """Labelled images, whose classes are read from the folder.

    With ``split``, ``data_root`` has one of these layouts:

    - ``train`` and one of ``val`` and ``test``, or both, each with a folder
      of images for every class;
    - the lists ``train.txt`` and one of ``val.txt`` and ``test.txt``, or
      both;
    - a folder of images for every class; or it is a list itself. Then every
      fifth image of a class, in the order of their paths, is held out to
      validate and test on.

    A list has a line for every image: its path from the folder of the list,
    a blank or a tab, and its class, a number from 0 or a name. Names with
    blanks need the tab.

    Without ``split`` all images are used: of the class folders in
    ``data_prefix``, or those in ``ann_file``, as MMPretrain's
    ``CustomDataset`` reads them.

    To train, unreadable images are replaced as by :class:`ImageFolder`, and
    every sample draws from its seed. To evaluate, all images are read once
    at the beginning; unreadable ones are left out, and listed in the log. In
    a distributed job all processes have to build the data set then.

    Args:
        data_root (str): The folder, or a list.
        pipeline (Sequence[dict | Callable]): Transforms, from
            :class:`LoadImage` to the packing. Defaults to an empty tuple.
        split (str, optional): ``'train'``, ``'val'`` or ``'test'``; the last
            two are the same where the folder has one of them. Defaults to
            None.
        data_prefix (str): Folder in ``data_root`` of the class folders, or of
            the paths in ``ann_file``. Defaults to ``''``.
        ann_file (str): A list of images, in ``data_root`` unless its path is
            absolute. Defaults to ``''``.
        classes (Sequence[str], optional): Names of the classes, in the order
            of their numbers. Defaults to None, the sorted names of the
            folders; a list of numbers has no names.
        test_mode (bool, optional): Whether to leave unreadable images out,
            not to replace them. Defaults to None: for ``'val'`` and
            ``'test'``.
        lazy_init (bool): Whether to search the folder later. Defaults to
            False.
        **kwargs: See :class:`ImageFolder`.

    Attributes:
        left_out (dict[str, str]): The unreadable images that were left out,
            and the reasons.

    Raises:
        FileNotFoundError: If there is no folder or no image.
        ValueError: If the layout is another one, or a line of a list.
        UnreadableImageError: If no image is readable, or too many are not.
    """

    def __init__(self,
                 data_root: str,
                 pipeline: Sequence[Union[dict, Callable]] = (),
                 split: Optional[str] = None,
                 data_prefix: str = '',
                 ann_file: str = '',
                 classes: Optional[Sequence[str]] = None,
                 test_mode: Optional[bool] = None,
                 lazy_init: bool = False,
                 **kwargs: Any) -> None:
        if split not in (None, *PARTS):
            raise ValueError("expected split to be 'train', 'val' or 'test', "
                             f'got {split!r}')
        self.split = split
        self.prefix = data_prefix
        self.list_file = ann_file
        self.classes = None if classes is None else tuple(classes)
        self.left_out: Dict[str, str] = {}
        super().__init__(data_root, pipeline, lazy_init=True, **kwargs)
        self.data_prefix.update(
            img_path=os.path.join(self.data_root, data_prefix))
        self.test_mode = (
            split in ('val', 'test') if test_mode is None else test_mode)
        if not lazy_init:
            self.full_init()

    def load_data_list(self) -> List[dict]:
        if self.list_file:
            file = Path(self.data_root, self.list_file)
            labels = self._number(self._read_list(file, self.prefix))
        elif self.split is None or self.prefix:
            labels = self._read_folders(Path(self.data_root, self.prefix))
        else:
            labels = self._read_split(self.split)
        self._metainfo.update(classes=self.classes)
        return [dict(img_path=path, gt_label=label) for path, label in labels]

    def _read_split(self, split: str) -> Labels:
        root = Path(self.data_root)
        if not root.exists():
            raise FileNotFoundError(
                'expected a folder of labelled images, or a list of them, but '
                f'there is no folder {root} (searched from {os.getcwd()!r})')
        parts = find_parts(root)
        part = next((parts[name] for name in PARTS[split] if name in parts),
                    None)
        file = part or root
        if file.is_file():
            # Numbers of names are alike in all lists.
            names = sorted({
                label
                for one in {*parts.values(), file}
                for _, label in self._read_list(one)
            })
            labels = self._number(self._read_list(file), names)
        else:
            labels = self._read_folders(file)
        return labels if part else hold_out(labels, split == 'train', root)

    def _read_folders(self, folder: Path) -> Labels:
        """Images of class folders, which number the classes."""
        try:
            paths = self._list_images(str(folder))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                'expected a folder of images for every class in '
                f'{folder}, but found no image: {error}') from error
        if self.classes is None:
            self.classes = tuple(class_folders(folder))
        number = {name: i for i, name in enumerate(self.classes)}
        labels: Labels = []
        unknown: Counter = Counter()
        for path in paths:
            inner = os.path.relpath(path, folder).split(os.sep)
            if len(inner) > 1 and inner[0] in number:
                labels.append((path, number[inner[0]]))
            else:
                unknown[inner[0] if len(inner) > 1 else ''] += 1
        if unknown and (unknown[''] < sum(unknown.values()) or not labels):
            others = ', '.join(f'{count:,} in {name or "no folder"}'
                               for name, count in sorted(unknown.items())[:10])
            raise ValueError(
                f'expected images in a folder for every class in {folder}, '
                f'got {others}')
        if unknown:
            print_log(
                f'{folder}: left out: {unknown[""]:,} images that are in no '
                'class folder',
                logger='current')
        empty = set(number.values()) - {label for _, label in labels}
        if empty:
            print_log(
                f'{folder} has no image of these classes: '
                f'{[self.classes[i] for i in sorted(empty)][:10]}',
                logger='current')
        return labels

    def _read_list(self, file: Path, prefix: str = '') -> List[List[str]]:
        """Paths and classes of a list."""
        lines = []
        folder = Path(self.data_root)
        if folder.is_file():
            folder = folder.parent
        with open(file, encoding='utf-8') as content:
            for number, line in enumerate(content, 1):
                line = line.rstrip('\r\n')
                if not line.strip():
                    continue
                path, _, label = line.rpartition('\t' if '\t' in line else ' ')
                if not path.strip() or not label.strip():
                    raise ValueError(
                        f'{file}, line {number}: expected the path of an '
                        f'image, a blank or a tab, and its class, got {line}')
                lines.append([str(folder / prefix / path), label.strip()])
        if not lines:
            raise FileNotFoundError(
                f'expected the paths of images and their classes in {file}, '
                'which is empty')
        return lines

    def _number(self,
                lines: List[List[str]],
                names: Optional[List[str]] = None) -> Labels:
        """Classes by their numbers, which are given or those of names."""
        used = {label for _, label in lines}.union(names or [])
        if all(label.isdecimal() for label in used):
            number = {label: int(label) for label in used}
            count = max(number.values()) + 1
            if names is not None and self.classes is None:
                self.classes = tuple(map(str, range(count)))
            if self.classes is not None and count > len(self.classes):
                raise ValueError(
                    f'expected the numbers of the {len(self.classes)} classes '
                    f'in {self.data_root}, got {count - 1}')
            return [(path, number[label]) for path, label in lines]
        if self.classes is None:
            if names is None:
                raise ValueError(
                    f'expected numbers of classes in {self.list_file}, got '
                    f'{sorted(used)[:5]}; names need `classes` of the '
                    'dataset, or `split` in place of `ann_file`')
            self.classes = tuple(names)
        number = {name: i for i, name in enumerate(self.classes)}
        unknown = used - set(number)
        if unknown:
            raise ValueError(f'expected the classes {self.classes[:10]}, got '
                             f'{sorted(unknown)[:10]}')
        return [(path, number[label]) for path, label in lines]

    def full_init(self) -> None:
        """Read the labels, and check images before an evaluation."""
        if self._fully_initialized:
            return
        super().full_init()
        if self.test_mode:
            self._leave_out_unreadable()

    def _leave_out_unreadable(self) -> None:
        total = len(self)
        reasons = self._check(range(get_rank(), total, get_world_size()))
        broken: Dict[int, str] = {}
        for part in all_gather_object(reasons):
            broken.update(part)
        if not broken:
            return
        paths = {i: self.get_data_info(i)['img_path'] for i in sorted(broken)}
        self.left_out = {path: broken[i] for i, path in paths.items()}
        self._reasons.update(self.left_out)
        self._refuse_many(len(broken), total, total)
        listed = '\n'.join(list(self.left_out.values())[:LISTED])
        if len(broken) > LISTED:
            listed += f'\n... and {len(broken) - LISTED} more'
        print_log(
            f'Left out {len(broken):,} of {total:,} images of '
            f'{self.data_root} that cannot be read:\n{listed}',
            logger='current',
            level=logging.WARNING)
        self.get_subset_([i for i in range(total) if i not in broken])

    def _check(self, indices: Sequence[int]) -> Dict[int, str]:
        """Why images cannot be read, by index."""
        if not self.pipeline.transforms:
            return {}
        check = _Check(self, indices)
        found: Iterable[str] = map(check.__getitem__, range(len(indices)))
        if len(indices) >= CHECKED:
            print_log(
                f'Checking that {len(self):,} images of {self.data_root} can '
                'be read.',
                logger='current')
            found = DataLoader(
                check,
                batch_size=None,
                num_workers=os.cpu_count() or 1,
                # The global one draws what the run draws.
                generator=Generator())
        return {i: reason for i, reason in zip(indices, found) if reason}

    def _load(self, idx: int) -> dict:
        return self.prepare_data(idx) if self.test_mode else super()._load(idx)


class _Check(Dataset):
    """Why the images of a data set cannot be read, '' where they can."""

    def __init__(self, dataset: LabelledFolder,
                 indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> str:
        load = self.dataset.pipeline.transforms[0]
        try:
            load(self.dataset.get_data_info(self.indices[i]))
        except UnreadableImageError as error:
            return str(error)
        return ''


def read_classes(root: str) -> Tuple[str, ...]:
    """The names of the classes of labelled images, by their numbers.

    Args:
        root (str): The folder or list, see :class:`LabelledFolder`.

    Raises:
        FileNotFoundError: If there is no folder or no class.
        ValueError: If the layout is another one, or a line of a list.
    """
    folder = Path(root).expanduser()
    train = find_parts(folder).get('train', folder)
    if train.is_dir():
        names = tuple(class_folders(train))
        if not names:
            raise FileNotFoundError(
                f'expected a folder of images for every class in {train}, but '
                'found no folder')
        return names
    dataset = LabelledFolder(root, split='train', lazy_init=True)
    dataset.load_data_list()
    return dataset.classes or ()


def find_parts(root: Path) -> Dict[str, Path]:
    """The lists, else the folders, of training, validation and test.

    Empty where ``root`` is a list or holds the class folders.

    Raises:
        ValueError: If there is a part to train on and none to validate on, or
            folders have other classes than others.
    """
    for ending in ('.txt', ''):
        parts = {name: root / f'{name}{ending}' for name in PARTS}
        train = parts['train']
        # `train` may also be a class, with images in it.
        if not (train.is_file()
                if ending else train.is_dir() and class_folders(train)):
            continue
        parts = {name: one for name, one in parts.items() if one.exists()}
        if len(parts) == 1:
            raise ValueError(f'expected {root / "val"}{ending} or '
                             f'{root / "test"}{ending} beside {train}, but '
                             'there is neither')
        for name, part in parts.items():
            differing = set() if ending else set(class_folders(train)) ^ set(
                class_folders(part))
            if differing:
                raise ValueError(
                    f'expected the same class folders in train and {name} of '
                    f'{root}, but only one of them has '
                    f'{sorted(differing)[:10]}')
        return parts
    return {}


def class_folders(folder: Path) -> List[str]:
    """The names of the visible folders in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir()
                  if path.is_dir() and path.name[0] != '.')


def hold_out(labels: Labels, train: bool, root: Path) -> Labels:
    """The images to train on, or those that are held out."""
    seen: Counter = Counter()
    kept: Labels = []
    held_out: Labels = []
    for path, label in sorted(labels):
        seen[label] += 1
        (kept if seen[label] % HELD_OUT else held_out).append((path, label))
    if not held_out:
        raise ValueError(
            f'expected at least {HELD_OUT} images of a class, or train and '
            f'val folders, in {root}')
    return kept if train else held_out
