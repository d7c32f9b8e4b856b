# Copyright (c) greenmim authors. All rights reserved.
"""Reads checkpoints of any library without running code that they hold."""
import argparse
import collections
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

import torch
from mmengine.utils import digit_version
from safetensors import safe_open
from torch import Tensor

from .card import training_of
from .layouts import Tensors
from .recorded_config import read_recorded

# Where checkpoints keep the weights, and where their running averages (EMA).
# MMEngine's EMAHook swaps the two: its `state_dict` holds the averages.
RAW = ('state_dict', 'model')
AVERAGES = ('state_dict_ema', 'model_ema')
# Before the names of a safetensors file, which cannot nest the weights.
CONTAINER = 'model.'
PARTS = ('backbone.', 'encoder.')
# The key of our metadata in `meta`, or in the metadata of safetensors.
METADATA = 'greenmim'


@dataclass(frozen=True)
class Source:
    """The content of a checkpoint.

    Args:
        backbone: The backbone's tensors, without a prefix.
        others: All other tensors.
        prefix: What was removed from the backbone's names.
        averaged: Whether the weights are running averages.
        file: Name of the file.
        sha256: Its hash, in hexadecimal.
        metadata: What our exporter or importer recorded about the weights.
        config: The backbone's config, where the training recorded it.
        images: How images were loaded and normalised, where that is recorded:
            the settings under ``load``, ``crop`` and ``preprocessor``.
        training: What is recorded of the pre-training, see
            :func:`greenmim.weights.card.training_of`.
    """
    backbone: Tensors
    others: Tensors
    prefix: str
    averaged: bool
    file: str
    sha256: str
    metadata: Dict[str, Any] = field(default_factory=dict)
    config: Optional[Dict[str, Any]] = None
    images: Dict[str, Any] = field(default_factory=dict)
    training: Dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Union[str, Path], map_location: Any = 'cpu') -> Any:
    """Read a checkpoint; no code in the file is run.

    Args:
        path (str | Path): A file of PyTorch or, with the suffix
            ``.safetensors``, of safetensors.
        map_location: Device of the tensors, as in ``torch.load``. Defaults to
            ``'cpu'``.

    Returns:
        The content: tensors and plain types. A safetensors file is read as a
        dict with the keys ``state_dict`` and ``meta``, as MMEngine's are.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, is no checkpoint, or holds objects
            that could run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'expected a checkpoint, but there is no file {path}')
    try:
        if path.suffix == '.safetensors':
            return _read_safetensors(path, map_location)
        # Training options are often saved beside the weights. A Namespace
        # holds attributes alone, and a CfgNode of yacs is read as the dict
        # that it is, so that neither can run code.
        allowed: List[Any] = [argparse.Namespace]
        if digit_version(torch.__version__) >= digit_version('2.6'):
            allowed.append((collections.OrderedDict, 'yacs.config.CfgNode'))
        with torch.serialization.safe_globals(allowed):
            return torch.load(
                path, map_location=map_location, weights_only=True)
    # Readers raise errors of many unrelated types on a damaged file.
    except Exception as error:
        raise ValueError(
            f'cannot read {path} ({type(error).__name__}): expected a '
            'complete checkpoint of tensors and plain types, but the file is '
            'damaged, is no checkpoint, or holds objects that could run code'
        ) from error


def read_state_dict(path: Union[str, Path],
                    averaged: Optional[bool] = None) -> Tensors:
    """Read the weights of a checkpoint; no code in the file is run.

    Args:
        path (str | Path): A checkpoint, or a bare state dict.
        averaged (bool, optional): Take the running averages (True) or the
            weights themselves (False). Defaults to None: those that MMEngine
            would load.

    Returns:
        dict[str, Tensor]: The weights, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, or does not hold the weights
            asked for.
    """
    return _choose(read_checkpoint(path), averaged, path)[0]


def read_source(path: Path, averaged: Optional[bool] = None) -> Source:
    """Read a checkpoint and separate the backbone from the rest.

    Args:
        path (Path): The checkpoint.
        averaged (bool, optional): As in :func:`read_state_dict`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, or does not hold the weights
            asked for.
    """
    content = read_checkpoint(path)
    tensors, is_average = _choose(content, averaged, path)
    backbone, others, prefix = _split(tensors)
    meta = _dict(content.get('meta'))
    return Source(
        backbone,
        others,
        prefix,
        is_average,
        path.name,
        sha256_of(path),
        metadata=_dict(meta.get(METADATA)),
        config=read_recorded(meta.get('cfg'), 'model').get('backbone'),
        images=_dict(_dict(meta.get(METADATA)).get('images'))
        or _images(meta.get('cfg')),
        training=training_of(meta))


def add_ema_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--ema`` and ``--raw``, which set ``args.averaged``.

    Args:
        parser (argparse.ArgumentParser): The parser of a command.
    """
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        '--ema',
        dest='averaged',
        action='store_true',
        default=None,
        help='take the running averages')
    weights.add_argument(
        '--raw',
        dest='averaged',
        action='store_false',
        default=None,
        help='take the weights themselves, not their running averages')


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        for chunk in iter(lambda: file.read(2**20), b''):
            digest.update(chunk)
    return digest.hexdigest()


def _read_safetensors(path: Path, device: Any) -> Dict[str, Any]:
    with safe_open(str(path), framework='pt', device=str(device)) as file:
        metadata = json.loads((file.metadata() or {}).get(METADATA, '{}'))
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    nested = {
        name[len(CONTAINER):]: tensor
        for name, tensor in tensors.items() if name.startswith(CONTAINER)
    }
    return dict(state_dict=nested or tensors, meta={METADATA: metadata})


def _choose(content: Any, averaged: Optional[bool],
            path: Union[str, Path]) -> Tuple[Tensors, bool]:
    """The weights or their averages, and whether they are averages."""
    content = _dict(content)
    raw = next((key for key in RAW if key in content), None)
    average = next((key for key in AVERAGES if key in content), None)
    swapped = raw == 'state_dict' and 'ema_state_dict' in content
    if swapped:
        raw, average = 'ema_state_dict', 'state_dict'
    if averaged and average is None:
        raise ValueError(f'expected running averages in {path}, such as '
                         "MMEngine's 'ema_state_dict', found none; leave out "
                         '--ema')
    if averaged is None:
        averaged = swapped
    key = average if averaged else raw
    tensors = _dict(content if key is None else content[key])
    named = {k: v for k, v in tensors.items() if isinstance(v, Tensor)}
    if not named or not all(isinstance(name, str) for name in named):
        raise ValueError(
            f'expected named tensors in {path}, at the top or under one of '
            f'{RAW + AVERAGES}, found something else')
    others = sorted(str(name) for name in tensors.keys() - named.keys())
    if others:
        raise ValueError('expected nothing but tensors among the weights in '
                         f'{path}, found also {others[:3]}')
    # MMEngine's averaged model counts its steps beside the weights.
    if key == 'ema_state_dict':
        named.pop('steps', None)
    return named, averaged


def _split(tensors: Tensors) -> Tuple[Tensors, Tensors, str]:
    """The backbone's tensors, all others, and the backbone's prefix."""
    outer = 'module.' if all(k.startswith('module.') for k in tensors) else ''
    tensors = {name[len(outer):]: t for name, t in tensors.items()}
    part = next(
        (part
         for part in PARTS if any(name.startswith(part) for name in tensors)),
        '')
    # Without a prefix, the backbone is all but the classifier.
    pattern = re.escape(part) if part else r'(?!(head|fc)\.)'
    backbone, others = {}, {}
    for name, tensor in tensors.items():
        if re.match(pattern, name):
            backbone[name[len(part):]] = tensor
        else:
            others[name] = tensor
    return backbone, others, outer + part


def _images(text: Any) -> Dict[str, Any]:
    """How the training of a recorded config loads and normalises images."""
    loader = read_recorded(text, 'train_dataloader')
    pipeline = _dict(loader.get('dataset')).get('pipeline') or []
    steps = [step for step in pipeline if isinstance(step, dict)]
    found = dict(preprocessor=read_recorded(text, 'data_preprocessor'))
    for name, word in dict(load='Load', crop='Crop').items():
        found[name] = next(
            (step for step in steps if word in str(step.get('type'))), {})
    return {name: value for name, value in found.items() if value}


def _dict(value: Any) -> Dict[Any, Any]:
    return value if isinstance(value, dict) else {}
