# Copyright (c) greenmim authors. All rights reserved.
import os
from pathlib import Path
from typing import (Callable, Iterable, Iterator, List, Optional, Sequence,
                    Union)

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.structures import BaseDataElement

from greenmim.models.masking.data_samples import write_skipped_images
from greenmim.registry import DATASETS
from .folder_index import list_images
from .seeding import seeded
from .transforms import UnreadableImageError


@DATASETS.register_module()
class ImageFolder(BaseDataset):
    """All images below a folder, without labels.

    The folder is searched recursively and in a fixed order. It needs neither
    class folders nor an annotation file. Hidden files and folders are left
    out, links to folders are followed.

    An image that :class:`LoadImage`, the first transform of the pipeline,
    cannot read is replaced by another one. Which one depends on its index
    alone, so a run is the same for any number of workers. The replacement's
    meta information ``skipped_images`` names the skipped files for
    :class:`greenmim.engine.UnreadableImageHook`.

    With ``index_dir``, which the recipes set, large folders are indexed once,
    see :mod:`greenmim.datasets.folder_index`.

    Args:
        data_root (str): The folder.
        pipeline (Sequence[dict | Callable]): Transforms, from
            :class:`LoadImage` to the packing. Defaults to an empty tuple.
        extensions (Sequence[str]): File name endings of images, in lower
            case; upper and lower case both match.
        indices (int | Sequence[int], optional): Use only these images, or
            only the first ``indices``. Defaults to None, all images.
        lazy_init (bool): Whether to search the folder later. Defaults to
            False.
        index_dir (str, optional): Folder in which the list of a large folder
            is kept. Defaults to None: the folder is searched every time and
            nothing is written.

    Raises:
        FileNotFoundError: If the folder is missing or holds no image.
        UnreadableImageError: If not one of its images is readable.
    """

    EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif',
                  '.tiff', '.webp', '.gif', '.jp2')

    def __init__(self,
                 data_root: str,
                 pipeline: Sequence[Union[dict, Callable]] = (),
                 extensions: Sequence[str] = EXTENSIONS,
                 indices: Union[int, Sequence[int], None] = None,
                 lazy_init: bool = False,
                 index_dir: Optional[str] = None) -> None:
        self.index_dir = index_dir
        self.extensions = tuple(extensions)
        super().__init__(
            data_root=str(Path(data_root).expanduser()),
            data_prefix=dict(),
            pipeline=list(pipeline),
            indices=indices,
            lazy_init=lazy_init)

    def load_data_list(self) -> List[dict]:
        if not os.path.isdir(self.data_root):
            raise FileNotFoundError(
                f'`data_root` should be a folder of images, but '
                f'{self.data_root!r} is not a folder (searched from '
                f'{os.getcwd()!r}). Set `data_root` of the dataset to your '
                'folder.')
        paths = list_images(self.data_root, self.extensions, self.index_dir)
        if not paths:
            raise FileNotFoundError(
                f'`data_root` should hold images, but no file below '
                f'{self.data_root!r} ends in {", ".join(self.extensions)} '
                '(hidden files do not count). Check the folder, or set '
                '`extensions` of the dataset.')
        root = os.path.join(self.data_root, '')
        return [dict(img_path=root + path) for path in paths]

    def full_init(self) -> None:
        """Search the folder and check that it has a readable image.

        This usually loads a single image.
        """
        if not self._fully_initialized:
            super().full_init()
            self._first_readable(range(len(self)))

    @seeded
    @force_full_init
    def __getitem__(self, idx: int) -> dict:
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
                continue
            sample = data.get('data_samples')
            if skipped and isinstance(sample, BaseDataElement):
                write_skipped_images(sample, skipped)
            return data
        raise UnreadableImageError(
            f'{self.data_root!r} should hold readable images, but none of its '
            f'{len(skipped)} images could be read. The first: '
            f'{next(iter(skipped.values()))}. Check the folder and '
            '`channels` of LoadImage.')
