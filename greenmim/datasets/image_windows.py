# Copyright (c) greenmim authors. All rights reserved.
"""Windows of large images, read at random places."""
import os
import warnings
from collections import OrderedDict
from typing import Any, Callable, List, Optional, Sequence, Tuple, Union

import numpy as np

from greenmim.registry import DATASETS
from .decoding.containers import Raster, full_scale, need
from .decoding.levels import valid_values
from .image_folder import ImageFolder
from .transforms import UnreadableImageError

OPEN_FILES = 16
TRIES = 128
# MiB of decompressed blocks that a process keeps. GDAL would keep a twentieth
# of the memory, in every worker.
CACHE = 256


@DATASETS.register_module()
class ImageWindows(ImageFolder):
    """A folder of large images, GeoTIFF for example, that is not cut first.

    Square cells tile every image, and a sample is a window at a random place
    that contains its cell. So an epoch, which visits every cell once, covers
    the whole area, and no border is always in the same place. The place
    depends on the sample's seed alone, as all its randomness does. Only the
    blocks of a file that a window touches are read and decompressed: tiled
    files are fast, striped ones read whole rows, a file of one compressed
    strip all of it.

    A window with too few pixels of data is replaced by that of another cell.
    Pixels are no data by their value or by the mask or opacity of their file.

    Args:
        data_root (str): The folder.
        pipeline (Sequence[dict | Callable]): Transforms, from
            :class:`LoadImage` to the packing. Defaults to an empty tuple.
        window_size (int): Side of a window in pixels. Images that are smaller
            are read as a whole. Defaults to 512.
        cell_size (int, optional): Side of a cell in pixels. Defaults to None,
            half a window.
        nodata (float, optional): The value of pixels without data. Defaults
            to None, the one that a file names.
        min_data (float): The share of pixels in a window that are data in
            some band, at least. Defaults to 0.5.
        extensions (Sequence[str]): File name endings, in lower case.
            Defaults to those of TIFF.
        **kwargs: See :class:`ImageFolder`.

    Raises:
        ImportError: If rasterio is not installed.
        ValueError: If a size or share is out of range.
    """

    def __init__(self,
                 data_root: str,
                 pipeline: Sequence[Union[dict, Callable]] = (),
                 window_size: int = 512,
                 cell_size: Optional[int] = None,
                 nodata: Optional[float] = None,
                 min_data: float = 0.5,
                 extensions: Sequence[str] = ('.tif', '.tiff'),
                 **kwargs: Any) -> None:
        cell_size = window_size // 2 if cell_size is None else cell_size
        if not 1 <= cell_size <= window_size:
            raise ValueError('expected 1 <= cell_size <= window_size, got '
                             f'{cell_size} and {window_size}')
        if not 0 <= min_data <= 1:
            raise ValueError(
                f'expected min_data within 0 and 1, got {min_data}')
        self.window_size = window_size
        self.cell_size = cell_size
        self.nodata = nodata
        self.min_data = min_data
        self._files: 'OrderedDict[Tuple[int, str], Any]' = OrderedDict()
        super().__init__(data_root, pipeline, extensions, **kwargs)

    def load_data_list(self) -> List[dict]:
        """The cells of all files; those that cannot be opened are one."""
        cells = []
        for info in super().load_data_list():
            try:
                file = self._open(info['img_path'])
            except UnreadableImageError:
                cells.append(dict(info, cell=(0, 0)))
                continue
            cells += [
                dict(info, cell=(top, left))
                for top in range(0, file.height, self.cell_size)
                for left in range(0, file.width, self.cell_size)
            ]
        return cells

    def prepare_data(self, idx: int) -> Any:
        """Read a window around a cell and run the pipeline."""
        for _ in range(TRIES):
            info = self.get_data_info(idx)
            raster, share = self._read(info['img_path'], info['cell'])
            if share >= self.min_data:
                return self.pipeline(dict(info, img_raster=raster))
            idx = np.random.randint(len(self))
        raise UnreadableImageError(
            f'cannot read {info["img_path"]} around {info["cell"]}: of '
            f'{TRIES} windows none had {self.min_data:.0%} of data; lower '
            'min_data, or leave out files without data')

    def _read(self, path: str, cell: Tuple[int, int]) -> Tuple[Raster, float]:
        """A window around a cell, and the share of its pixels with data."""
        from rasterio.enums import ColorInterp, MaskFlags
        from rasterio.windows import Window
        file = self._open(path)
        top, height = self._place(cell[0], file.height)
        left, width = self._place(cell[1], file.width)
        window = Window(left, top, width, height)
        kinds = file.colorinterp
        try:
            if kinds[0] in (ColorInterp.palette, ColorInterp.cyan):
                raise ValueError(
                    f'expected grey, colours or bands, got {kinds[0].name}; '
                    'convert the file by gdal_translate -expand rgb, or by '
                    'gdalwarp')
            values = file.read(window=window)
            bits = file.tags(1, ns='IMAGE_STRUCTURE').get('NBITS')
            inverted = file.tags(ns='IMAGE_STRUCTURE').get('MINISWHITE')
            raster = Raster(
                np.ascontiguousarray(values.transpose(1, 2, 0)),
                is_colour=kinds[0] == ColorInterp.red,
                has_alpha=kinds[-1] == ColorInterp.alpha,
                is_tiff=True,
                window=full_scale(int(bits))
                if bits and values.dtype.kind == 'u' else None,
                inverted=inverted == 'YES',
                nodata=file.nodata if self.nodata is None else self.nodata)
            valid = valid_values(raster.values, raster.nodata)
            has_data: Any = True if valid is None else valid.any(-1)
            if MaskFlags.per_dataset in file.mask_flag_enums[0]:
                has_data = has_data & (file.dataset_mask(window=window) > 0)
        except Exception as error:
            raise UnreadableImageError(
                f'cannot read the image {path}: {error}') from error
        return raster, float(np.mean(has_data))

    def _place(self, cell: int, side: int) -> Tuple[int, int]:
        """Start and length of a window along an axis, around its cell."""
        length = min(self.window_size, side)
        end = min(cell + self.cell_size, side)
        first, last = max(0, end - length), min(cell, side - length)
        return np.random.randint(first, last + 1), length

    def _open(self, path: str) -> Any:
        """An open file of this process, of which a few are kept."""
        try:
            import rasterio
            from rasterio.env import set_gdal_config
            from rasterio.errors import NotGeoreferencedWarning
        except ImportError:
            raise ImportError(need('rasterio', 'windows of images')) from None
        key = os.getpid(), path
        file = self._files.pop(key, None)
        if file is None:
            try:
                set_gdal_config('GDAL_CACHEMAX', CACHE)
                with warnings.catch_warnings():
                    warnings.simplefilter('ignore', NotGeoreferencedWarning)
                    file = rasterio.open(path)
            except rasterio.errors.RasterioIOError as error:
                raise UnreadableImageError(
                    f'cannot read the image {path}: {error}') from error
        self._files[key] = file
        if len(self._files) > OPEN_FILES:
            self._files.popitem(last=False)
        return file

    def __getstate__(self) -> dict:  # open files cannot be pickled
        return dict(self.__dict__, _files=OrderedDict())
