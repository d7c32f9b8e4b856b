# Copyright (c) greenmim authors. All rights reserved.
"""Features of images by a pre-trained backbone."""
import csv
from os import PathLike
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

import numpy as np
import torch
from mmengine.device import get_device
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from greenmim.datasets import ImageArchive, ImageFolder, UnreadableImageError
from .loading import Preprocess, load, preprocess

SUFFIXES = ('.npz', '.csv', '.parquet')


class Features(NamedTuple):
    """What :func:`features` returns."""
    features: np.ndarray  # fp32 (N, C), or maps (N, C, H, W)
    paths: List[str]  # of the N images
    left_out: Dict[str, str]  # images that cannot be read, and why


class _Images(Dataset):
    """Images, ready for the backbone, or why one cannot be read."""

    def __init__(self, data: str, transform: Preprocess) -> None:
        path = Path(data).expanduser()
        self.transform = transform
        is_archive = path.is_file() or (path / 'data.mdb').is_file()
        kind = ImageArchive if is_archive else ImageFolder
        self.images = kind(str(path), [transform.load, self.finish])
        self.names = [
            self.images.get_data_info(i)['img_path']
            for i in range(len(self.images))
        ]

    def finish(self, results: dict) -> dict:
        return dict(image=self.transform.finish(results['img']))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tuple[int, Union[Tensor, str]]:
        try:
            return index, self.images.prepare_data(index)['image']
        except UnreadableImageError as error:
            return index, str(error)


def features(run: Union[str, PathLike],
             data: str,
             *,
             out: Optional[str] = None,
             maps: bool = False,
             size: Optional[int] = None,
             batch_size: int = 64,
             num_workers: int = 2) -> Features:
    """Compute the features of all images in a folder.

    Images that cannot be read are left out and named.

    Args:
        run (str | PathLike): The folder of a run, a checkpoint, or an export.
        data (str): The folder of images, or a zip or tar archive or LMDB.
        out (str, optional): File to write: .npz, .csv or .parquet. Defaults
            to None.
        maps (bool): Keep the map of the last stage, instead of its average
            over the image.
        size (int, optional): Side of the images in pixels. Defaults to None,
            that of the pre-training.
        batch_size (int): Images computed at once. Defaults to 64.
        num_workers (int): Processes that load images. Defaults to 2.

    Returns:
        Features: The array, the paths of its images, and those left out.

    Raises:
        FileNotFoundError: If there is no such run or no image.
        ImportError: If a parquet file is asked for without pyarrow.
        ValueError: If no image can be read, or OUT has another suffix.
    """
    path = None if out is None else _check(Path(out).expanduser(), maps)
    transform = preprocess(run)
    if size is not None:
        transform.size = size
    images = _Images(str(data), transform)
    device = torch.device(get_device())
    backbone = load(run).to(device)
    names = images.names
    loader = DataLoader(
        images, batch_size, num_workers=num_workers, collate_fn=list)
    rows: List[np.ndarray] = []
    paths: List[str] = []
    left_out: Dict[str, str] = {}
    with torch.inference_mode():
        for batch in loader:
            read = [(i, x) for i, x in batch if isinstance(x, Tensor)]
            left_out.update(
                (names[i], x) for i, x in batch if isinstance(x, str))
            if not read:
                continue
            x = backbone(torch.stack([x for _, x in read]).to(device))[-1]
            x = x.float() if maps else x.float().mean((2, 3))
            rows.append(x.cpu().numpy())
            paths += [names[i] for i, _ in read]
    result = Features(np.concatenate(rows), paths, left_out)
    if path is not None:
        _write(path, result)
        print(f'{path}: features {result.features.shape} of {len(paths)} '
              'images')
    for name, reason in left_out.items():
        print(f'left out: {name}: {reason}')
    return result


def _check(path: Path, maps: bool) -> Path:
    """The file, refused before anything is computed if it cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f'expected --out that ends in one of {SUFFIXES}, '
                         f'got {path}')
    if maps and path.suffix == '.csv':
        raise ValueError('expected .npz or .parquet for maps, which are no '
                         f'table, got {path}')
    if path.suffix == '.parquet':
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ImportError('a .parquet file needs pyarrow. Run: '
                              'pip install pyarrow') from error
    return path


def _write(path: Path, result: Features) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values: Any = result.features
    if path.suffix == '.npz':
        np.savez(path, features=values, paths=np.array(result.paths))
    elif path.suffix == '.csv':
        with path.open('w', newline='', encoding='utf-8') as file:
            writer = csv.writer(file)
            writer.writerow(
                ['path', *(f'feature_{i}' for i in range(values.shape[1]))])
            for name, row in zip(result.paths, values.tolist()):
                writer.writerow([name, *row])
    else:
        import pyarrow
        from pyarrow import parquet
        table = pyarrow.table(
            dict(
                path=result.paths,
                features=[row.ravel() for row in values],
                shape=[list(row.shape) for row in values]))
        parquet.write_table(table, path)
