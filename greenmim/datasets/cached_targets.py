# Copyright (c) greenmim authors. All rights reserved.
"""Targets that were computed before the training, read from files.

A teacher need not run in every step if the images it sees repeat. So every
image has some fixed views (``views_per_image`` of the sampler), and a cache
holds the target of each in float16:

- ``cache.json``: what was cached, :class:`TargetCache`'s fields.
- ``targets_00000.npy`` and so on: shards of ``rows`` samples, (rows, L, D);
  sample ``view * num_images + index`` is the ``view`` of image ``index``.

``tools/misc/cache_targets.py`` makes it. The letters of shapes are defined in
:mod:`greenmim.ops`.
"""
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import torch
from mmengine.config import Config
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS

from greenmim.models.masking.data_samples import write_cached_target
from greenmim.registry import DATASETS
from .seeding import SeededIndex, mix_seeds

SHARD_BYTES = 2**28
MANIFEST = 'cache.json'
# What may differ between the run that made a cache and one that reads it.
PLACES = ('data_root', 'index_dir')


@dataclass(frozen=True)
class TargetCache:
    """The targets of the fixed views of a data set's images.

    Args:
        source (dict): The data set: its config without places, and a digest
            of file names.
        key (str): The target that was computed, ``head.target_key``.
        num_images (int): Images of the data set.
        views_per_image (int): Views of each image.
        shape (Sequence[int]): Units and values of a sample, (L, D).
    """
    source: Dict[str, Any]
    key: str
    num_images: int
    views_per_image: int
    shape: Sequence[int]

    @property
    def num_samples(self) -> int:
        """All views of all images."""
        return self.num_images * self.views_per_image

    @property
    def sample_bytes(self) -> int:
        """Size of a sample on the disk."""
        return 2 * self.shape[0] * self.shape[1]

    @property
    def rows(self) -> int:
        """Samples of a shard."""
        return max(1, SHARD_BYTES // self.sample_bytes)

    @property
    def num_bytes(self) -> int:
        """Size of the whole cache on the disk, within some kB."""
        return self.num_samples * self.sample_bytes

    def shards(self) -> List[Tuple[str, range]]:
        """File name and samples of every shard."""
        starts = range(0, self.num_samples, self.rows)
        return [(f'targets_{i:05d}.npy',
                 range(start, min(start + self.rows, self.num_samples)))
                for i, start in enumerate(starts)]

    def sample(self, number: int) -> SeededIndex:
        """The view of an image that is a sample of the cache."""
        view, index = divmod(number, self.num_images)
        return SeededIndex.of_epoch(index, 0, view, self.views_per_image)

    def missing(self, folder: Path) -> List[str]:
        """Names of the shards that were not made yet."""
        return [
            name for name, _ in self.shards() if not (folder / name).exists()
        ]

    def open(self, folder: Path) -> None:
        """Begin a cache in a folder, or find it begun.

        Raises:
            ValueError: If the folder holds another cache.
        """
        folder.mkdir(parents=True, exist_ok=True)
        manifest = folder / MANIFEST
        if manifest.exists():
            found = json.loads(manifest.read_text('utf-8'))
            check_equal(found, self._fields(), folder)
        else:
            _write(manifest, json.dumps(self._fields(), indent=1).encode())

    def write(self, folder: Path, name: str, targets: np.ndarray) -> None:
        """Write a shard, whole or not at all."""
        temporary = folder / f'{name}.{os.getpid()}.tmp'
        with open(temporary, 'wb') as file:
            np.save(file, targets.astype(np.float16, copy=False))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / name)

    @classmethod
    def load(cls, folder: Path) -> 'TargetCache':
        """Find a finished cache.

        Raises:
            FileNotFoundError: If there is none, or shards are missing.
        """
        make = ('run tools/misc/cache_targets.py, which continues where it '
                'stopped')
        if not (folder / MANIFEST).is_file():
            raise FileNotFoundError(f'expected a cache of targets, but there '
                                    f'is no file {folder / MANIFEST}; {make}')
        cache = cls(**json.loads((folder / MANIFEST).read_text('utf-8')))
        missing = cache.missing(folder)
        if missing:
            raise FileNotFoundError(
                f'expected {len(cache.shards())} shards of targets in '
                f'{folder}, but {len(missing)} are missing, {missing[0]} for '
                f'example; {make}')
        return cache

    def _fields(self) -> Dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))


@DATASETS.register_module()
class CachedTargets:
    """A data set whose samples bring their targets from a cache.

    Its sampler is a seeded one with ``views_per_image`` of the cache. Samples
    of other views, as hooks draw them, have no target; the model computes it.

    Args:
        dataset (dict): Config of the data set, with seeded samples.
        cache (str): The folder that ``tools/misc/cache_targets.py`` wrote.

    Raises:
        FileNotFoundError: If the cache is missing or incomplete.
        ValueError: If it was made for other images or another pipeline.
    """

    def __init__(self, dataset: dict, cache: str) -> None:
        self.dataset = MMPRETRAIN_DATASETS.build(dataset)
        self.folder = Path(cache).expanduser()
        self.cache = TargetCache.load(self.folder)
        self._shards: Dict[int, np.ndarray] = {}
        check_equal(self.cache.source, source_of(dataset, self.dataset),
                    self.folder)

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # while unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getstate__(self) -> dict:
        return dict(self.__dict__, _shards={})

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> dict:
        data = self.dataset[idx]
        view = getattr(idx, 'view', 0)
        if getattr(idx, 'seed', None) != mix_seeds(view, int(idx)):
            return data  # no view of the sampler's
        if view >= self.cache.views_per_image:
            raise ValueError(
                f'expected one of the {self.cache.views_per_image} views of '
                f'the cache, got view {view + 1}; set views_per_image='
                f'{self.cache.views_per_image} of the sampler')
        number = view * self.cache.num_images + int(idx)
        write_cached_target(data['data_samples'], self._target(number),
                            self.cache.key)
        return data

    def _target(self, number: int) -> torch.Tensor:
        shard, row = divmod(number, self.cache.rows)
        if shard not in self._shards:
            name, _ = self.cache.shards()[shard]
            self._shards[shard] = np.load(self.folder / name, mmap_mode='r')
        return torch.from_numpy(self._shards[shard][row].copy())


def source_of(cfg: dict, dataset: Any) -> Dict[str, Any]:
    """Describe a data set, so that another one is recognised.

    Args:
        cfg (dict): Its config.
        dataset (Dataset): The data set that was built from it.

    Returns:
        dict: The config without places, the number of images, and a digest of
        the names of up to 1,000 files.
    """
    plain = Config(dict(cfg=cfg)).to_dict()['cfg']
    for place in PLACES:
        plain.pop(place, None)
    number = len(dataset)
    picked = sorted({i * number // 1000 for i in range(1000)})
    names = [
        Path(str(dataset.get_data_info(i).get('img_path'))).name
        for i in picked if number
    ]
    digest = hashlib.sha256('\n'.join(names).encode()).hexdigest()[:16]
    source = dict(config=plain, num_images=number, names=digest)
    return json.loads(json.dumps(source, default=str))


def check_equal(found: Dict[str, Any], expected: Dict[str, Any],
                folder: Path) -> None:
    """Refuse a cache that differs, naming how."""
    for name, value in expected.items():
        if isinstance(value, dict) and isinstance(found.get(name), dict):
            check_equal(found[name], value, folder)
        elif found.get(name) != value:
            raise ValueError(
                f'expected a cache of targets with {name}={value}, but '
                f'{folder} was made with {found.get(name)}; make another one '
                'in a new folder with tools/misc/cache_targets.py')


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(f'.{os.getpid()}.tmp')
    temporary.write_bytes(content)
    os.replace(temporary, path)
