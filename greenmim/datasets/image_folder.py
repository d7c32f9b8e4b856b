# Copyright (c) greenmim authors. All rights reserved.
import os
from pathlib import Path
from typing import (Callable, Dict, Iterable, Iterator, List, Optional,
                    Sequence, Union)

import numpy as np
import torch
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement

from greenmim.models.masking.data_samples import write_skipped_images
from greenmim.registry import DATASETS
from . import file_kinds
from .collate import CropWatchingPipeline
from .folder_index import list_images
from .held_out import HeldOut, HoldsOut
from .seeding import seeded
from .transforms import UnreadableImageError

# Of how many images the share of unreadable ones is judged, at least, unless
# there are fewer.
ENOUGH = 1000
READ, UNREADABLE = 1, 2


@DATASETS.register_module()
class ImageFolder(HoldsOut, BaseDataset):
    """All images below a folder, without labels.

    The folder is searched recursively and in a fixed order. It needs neither
    class folders nor an annotation file. Hidden files and folders are left
    out, links to folders are followed.

    An image that :class:`LoadImage`, the first transform of the pipeline,
    cannot read is replaced by another one. Which one depends on its index
    alone, so a run is the same for any number of workers. The replacement's
    meta information ``skipped_images`` names the skipped files for
    :class:`greenmim.engine.UnreadableImageHook`. Too many of them stop the
    run, see ``max_skipped``.

    One line of the log says how many images there are, and which files are
    left out.

    With ``index_dir``, which the recipes set, large folders are indexed once,
    see :mod:`greenmim.datasets.folder_index`.

    Args:
        data_root (str): The folder.
        pipeline (Sequence[dict | Callable]): Transforms, from
            :class:`LoadImage` to the packing. Defaults to an empty tuple.
        extensions (Sequence[str]): File name endings of images, in lower
            case; upper and lower case both match. Defaults to those of the
            images that can be read with the packages that are installed.
        indices (int | Sequence[int], optional): Use only these images, or
            only the first ``indices``. Defaults to None, all images.
        lazy_init (bool): Whether to search the folder later. Defaults to
            False.
        index_dir (str, optional): Folder in which the list of a large folder
            is kept. Defaults to None: the folder is searched every time and
            nothing is written.
        by_signature (bool): Whether files without an ending are images if
            their first bytes say so. Defaults to False.
        max_skipped (float): The share of the images that may be unreadable.
            Defaults to 0.5.
        held_out (int | str): Images that are not trained on, so that
            :class:`greenmim.engine.LearningHook` measures on them; the length
            of the data set does not count them. ``'auto'``, which the recipes
            set, is a twentieth, at least 8 and at most 64, and none of fewer
            than 100. Defaults to 0.

    Raises:
        FileNotFoundError: If the folder is missing or holds no image.
        UnreadableImageError: If not one of its images is readable, or a
            larger share than ``max_skipped`` is not.
        ValueError: If ``max_skipped`` is no share, or ``held_out`` leaves no
            image.
    """

    EXTENSIONS = file_kinds.EXTENSIONS

    def __init__(self,
                 data_root: str,
                 pipeline: Sequence[Union[dict, Callable]] = (),
                 extensions: Sequence[str] = EXTENSIONS,
                 indices: Union[int, Sequence[int], None] = None,
                 lazy_init: bool = False,
                 index_dir: Optional[str] = None,
                 by_signature: bool = False,
                 max_skipped: float = 0.5,
                 held_out: HeldOut = 0) -> None:
        if not 0 <= max_skipped <= 1:
            raise ValueError('expected max_skipped, a share of the images, '
                             f'within 0 and 1, got {max_skipped}')
        self.index_dir = index_dir
        self.extensions = tuple(extensions)
        self.by_signature = by_signature
        self.max_skipped = max_skipped
        self.held_out = held_out
        self._reasons: Dict[str, str] = {}
        super().__init__(
            ann_file='',
            data_root=str(Path(data_root).expanduser()),
            data_prefix=dict(),
            pipeline=list(pipeline),
            indices=indices,
            lazy_init=lazy_init)
        transforms = getattr(self, 'pipeline').transforms
        self.pipeline = CropWatchingPipeline(transforms)

    def load_data_list(self) -> List[dict]:
        return [
            dict(img_path=path) for path in self._list_images(self.data_root)
        ]

    def _list_images(self, folder: str) -> List[str]:
        """The paths of the images below a folder."""
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f'`data_root` should be a folder of images, but '
                f'{folder!r} is not a folder (searched from '
                f'{os.getcwd()!r}). Set `data_root` of the dataset to your '
                'folder.')
        paths, left_out = list_images(folder, self.extensions, self.index_dir,
                                      self.by_signature)
        self._report(repr(folder), len(paths), left_out)
        root = os.path.join(folder, '')
        return [root + path for path in paths]

    def _report(self, where: str, number: int, left_out: Dict[str,
                                                              int]) -> None:
        """Log what was found, or refuse a folder without an image."""
        if not number:
            found = file_kinds.describe(left_out)
            raise FileNotFoundError(
                f'`data_root` should hold images, but no file below {where} '
                f'ends in {", ".join(self.extensions)} (hidden files do not '
                f'count); there are {found or "no other files"}. Check the '
                'folder, or set `extensions` of the dataset, or '
                '`by_signature=True` for files without an ending.')
        print_log(
            file_kinds.summary(where, number, left_out), logger='current')

    def full_init(self) -> None:
        """Search the folder and check that it has a readable image.

        This usually loads a single image.
        """
        if not self._fully_initialized:
            super().full_init()
            # Shared with the data-loading workers, which know of one another.
            self._states = torch.zeros(
                len(self), dtype=torch.uint8).share_memory_()
            self._first_readable(range(len(self)))

    def held_out_part(self) -> Optional['ImageFolder']:
        part = super().held_out_part()
        if part is not None:
            part._states = torch.zeros(len(part), dtype=torch.uint8)
            part._reasons = {}
        return part

    @seeded
    @force_full_init
    def __getitem__(self, idx: int) -> dict:
        return self._load(idx)

    def _load(self, idx: int) -> dict:
        return self._first_readable(self._substitutes(idx))

    def _substitutes(self, idx: int) -> Iterator[int]:
        """The image itself, then all images in an order fixed by ``idx``."""
        yield idx
        generator = np.random.default_rng(idx % len(self))
        yield from generator.permutation(len(self)).tolist()

    def _first_readable(self, candidates: Iterable[int]) -> dict:
        skipped = {}
        for idx in candidates:
            try:
                data = self.prepare_data(idx)
            except UnreadableImageError as error:
                skipped[self.get_data_info(idx)['img_path']] = str(error)
                self._states[idx] = UNREADABLE
                continue
            self._states[idx] = READ
            if skipped:
                self._reasons.update(skipped)
                self._watch()
                sample = data.get('data_samples')
                if isinstance(sample, BaseDataElement):
                    write_skipped_images(sample, skipped)
            return data
        raise UnreadableImageError(
            f'{self.data_root!r} should hold readable images, but none of its '
            f'{len(skipped)} images could be read. The first: '
            f'{next(iter(skipped.values()))}. Check the folder and '
            '`channels` of LoadImage.')

    def _watch(self) -> None:
        """Stop where too many images are unreadable."""
        skipped = int((self._states == UNREADABLE).sum())
        seen = int(self._states.count_nonzero())
        self._refuse_many(skipped, seen, min(len(self), max(seen, ENOUGH)))

    def _refuse_many(self, skipped: int, seen: int, of: int) -> None:
        """Raise an error where more than the allowed share was skipped."""
        if skipped <= self.max_skipped * of:
            return
        examples = '\n'.join(list(self._reasons.values())[:5])
        raise UnreadableImageError(
            f'expected at most max_skipped={self.max_skipped:.0%} of '
            f'the images of {self.data_root!r} to be unreadable, but '
            f'{skipped:,} of the first {seen:,} are ({skipped / seen:.0%}), '
            f'for example:\n{examples}\nRepair or remove them, check the '
            'options of LoadImage, or raise `max_skipped` of the dataset '
            '(train_dataloader.dataset.max_skipped=1 to train on the rest).')
