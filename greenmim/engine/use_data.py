# Copyright (c) greenmim authors. All rights reserved.
"""Point a config at a folder of images: what ``--data`` of the tools does."""
import os
from pathlib import Path
from typing import Any, List

from mmengine.config import Config, ConfigDict

from greenmim.datasets.labelled_folder import read_classes

SPLITS = dict(
    train_dataloader='train', val_dataloader='val', test_dataloader='test')

# Settings of a data set that hold for other images too.
KEPT = ('pipeline', 'extensions', 'by_signature', 'index_dir', 'indices',
        'lazy_init', 'max_skipped', 'held_out')


def use_data(cfg: Config, data: str) -> None:
    """Set everything in a config that depends on the images.

    A classifier gets labelled images, in one of the layouts of
    :class:`greenmim.datasets.LabelledFolder`, and the number of their
    classes: of head and loss, of the data preprocessor, and no metric of more
    classes than there are. Any other config, of a pre-training, gets all
    images of the folder or archive, except for those that are held out to
    measure on (``held_out='auto'`` of the data set, unless the config has 0).
    Pipelines stay, but images are loaded by
    :class:`greenmim.datasets.LoadImage` where a pipeline loaded none.

    Args:
        cfg (Config): The config, which is changed.
        data (str): A folder, for a classifier also a list of images, for a
            pre-training also a zip or tar archive or LMDB.

    Raises:
        FileNotFoundError: If there are no such images.
        ValueError: If the labelled images have another layout.
    """
    path = Path(data).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f'expected a folder of images, but there is no {data} (searched '
            f'from {os.getcwd()!r})')
    if is_classifier(cfg):
        use_labelled(cfg, str(path.resolve()))
        _set_classes(cfg, len(read_classes(data)))
    else:
        _use_unlabelled(cfg, path.resolve())


def is_classifier(cfg: Config) -> bool:
    """Whether a config trains or tests a classifier."""
    return 'num_classes' in _model_of(cfg).get('head', {})


def _model_of(cfg: Config) -> ConfigDict:
    model = cfg.model
    while 'module' in model:  # test-time augmentation wraps it
        model = model.module
    return model


def innermost(loader: ConfigDict) -> ConfigDict:
    """The data set of a loader, inside of others that repeat or cache it.

    Args:
        loader (ConfigDict): The config of the data loader.
    """
    dataset = loader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def _replace(dataset: ConfigDict, **settings: Any) -> None:
    """Change the images, and drop what concerns the former ones."""
    for name in set(dataset) - set(KEPT):
        del dataset[name]
    dataset.update(settings)
    if not any('Load' in str(one['type']) for one in dataset.pipeline):
        load = ConfigDict(type='greenmim.LoadImage')
        dataset.pipeline = [load, *dataset.pipeline]


def use_labelled(cfg: Config, data: str) -> None:
    """Set the labelled images of a config, of a pre-training too.

    Args:
        cfg (Config): The config, which is changed.
        data (str): See :class:`greenmim.datasets.LabelledFolder`. What is
            held out of it is not trained on.
    """
    for field, split in SPLITS.items():
        if cfg.get(field) is not None:
            _replace(
                innermost(cfg[field]),
                type='greenmim.LabelledFolder',
                data_root=data,
                split=split)


def _set_classes(cfg: Config, number: int) -> None:
    head = _model_of(cfg).head
    head.num_classes = number
    if 'num_classes' in head.get('loss', {}):
        head.loss.num_classes = number
    for owner in (cfg, _model_of(cfg)):
        if owner.get('data_preprocessor') is not None:
            owner.data_preprocessor.num_classes = number
    for field in ('val_evaluator', 'test_evaluator'):
        for metric in _metrics_of(cfg.get(field)):
            if metric.get('topk') is not None:
                ranks = metric.topk
                ranks = [ranks] if isinstance(ranks, int) else ranks
                metric.topk = tuple(k for k in ranks if k < number) or (1, )


def _metrics_of(evaluator: Any) -> List[ConfigDict]:
    if evaluator is None:
        return []
    if isinstance(evaluator, dict) and 'metrics' in evaluator:
        evaluator = evaluator['metrics']
    return [evaluator] if isinstance(evaluator, dict) else list(evaluator)


def _use_unlabelled(cfg: Config, path: Path) -> None:
    dataset = innermost(cfg.train_dataloader)
    if path.is_file() or (path / 'data.mdb').is_file():
        dataset.pop('index_dir', None)
        _replace(dataset, type='greenmim.ImageArchive', data_root=str(path))
    elif str(dataset.type).split('.')[-1] == 'ImageWindows':
        dataset.data_root = str(path)
    else:
        dataset.setdefault('index_dir', '~/.cache/greenmim')
        _replace(dataset, type='greenmim.ImageFolder', data_root=str(path))
    # A number was chosen for other images.
    if dataset.get('held_out') != 0:
        dataset.held_out = 'auto'
