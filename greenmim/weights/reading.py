# Copyright (c) greenmim authors. All rights reserved.
"""Reads checkpoints of any library without running code that they hold."""
import argparse
import hashlib
import json
import os.path as osp
import re
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple, Union

import torch
from mmengine.runner import CheckpointLoader
from safetensors import safe_open
from torch import Tensor

from .card import training_of
from .layouts import Tensors
from .plain_data import allowed_globals
from .recorded_config import read_recorded

# Where checkpoints keep the weights, and where their running averages (EMA).
# MMEngine's EMAHook swaps the two: its `state_dict` holds the averages.
RAW = ('state_dict', 'model', 'model_state_dict', 'module', 'net', 'student')
AVERAGES = ('state_dict_ema', 'model_ema', 'ema_model', 'teacher')
# Before the names of a safetensors file, which cannot nest the weights.
CONTAINER = 'model.'
PARTS = ('backbone.', 'encoder.')
# The key of our metadata in `meta`, or in the metadata of safetensors.
METADATA = 'greenmim'
# What surrounds a model, of which the names of its tensors tell: compiled,
# in parallel, of Lightning, or trained beside its own average.
WRAPPERS = ('module.', '_orig_mod.', 'model.', 'net.', 'network.')
AVERAGED_WRAPPERS = ('teacher.', 'ema.', 'ema_model.', 'model_ema.')
RAW_WRAPPERS = ('student.', )
_TRUSTING: ContextVar[bool] = ContextVar('_TRUSTING', default=False)


@dataclass(frozen=True)
class Source:
    """The content of a checkpoint.

    Args:
        backbone: The backbone's tensors, without a prefix.
        others: All other tensors.
        prefix: What was removed from the backbone's names.
        averaged: Whether the weights are running averages.
        path: The file.
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
    path: Path
    sha256: str
    metadata: Dict[str, Any] = field(default_factory=dict)
    config: Optional[Dict[str, Any]] = None
    images: Dict[str, Any] = field(default_factory=dict)
    training: Dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.path.name


class UnsafeCheckpoint(ValueError):
    """A checkpoint holds what could run code when it is loaded."""


@contextmanager
def trusting(trusted: bool = True) -> Iterator[None]:
    """Read checkpoints meanwhile even if they could run code.

    Args:
        trusted (bool): Whether to. Defaults to True.
    """
    token = _TRUSTING.set(trusted)
    try:
        yield
    finally:
        _TRUSTING.reset(token)


def is_trusting() -> bool:
    """Whether :func:`trusting` is in effect."""
    return _TRUSTING.get()


def read_checkpoint(path: Union[str, Path], map_location: Any = 'cpu') -> Any:
    """Read a checkpoint; no code in the file is run.

    Beside tensors and plain types, it may hold numbers and arrays of NumPy,
    the logs of MMEngine, and training options.

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
        UnsafeCheckpoint: If the file holds objects that could run code, and
            :func:`trusting` is not in effect.
        ValueError: If the file is damaged, or is no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'expected a checkpoint, but there is no file {path}')
    try:
        if path.suffix == '.safetensors':
            return _read_safetensors(path, map_location)
        if is_trusting():
            return torch.load(
                path, map_location=map_location, weights_only=False)
        with torch.serialization.safe_globals(allowed_globals()):
            return torch.load(
                path, map_location=map_location, weights_only=True)
    # Readers raise errors of many unrelated types on a damaged file.
    except Exception as error:
        found = re.search(r'GLOBAL ([\w.]+)', str(error))
        if found:
            raise UnsafeCheckpoint(
                f'cannot read {path}: expected tensors and plain data, but it '
                f'holds {found[1]}, one of the objects that could run code '
                'when they are loaded; if you trust the file, add '
                '--trust-checkpoint') from error
        raise ValueError(
            f'cannot read {path} ({type(error).__name__}): expected a '
            'complete checkpoint, but the file is damaged or is none'
        ) from error


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read the local file of an ``init_cfg``, in place of MMEngine's loader.

    Args:
        filename (str): The file.
        map_location: Device of the tensors. Defaults to None, the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        UnsafeCheckpoint: See :func:`read_checkpoint`.
        ValueError: If it cannot be read.
    """
    return read_checkpoint(osp.expanduser(filename), map_location or 'cpu')


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
        UnsafeCheckpoint: See :func:`read_checkpoint`.
        ValueError: If the file cannot be read, or does not hold the weights
            asked for.
    """
    return _choose(read_checkpoint(path), averaged, path)[0]


def read_source(path: Path,
                averaged: Optional[bool] = None,
                prefix: Optional[str] = None) -> Source:
    """Read a checkpoint and separate the backbone from the rest.

    Args:
        path (Path): The checkpoint.
        averaged (bool, optional): As in :func:`read_state_dict`.
        prefix (str, optional): What the names of the backbone begin with.
            Defaults to None: what wrappers, a backbone or an encoder are
            called, or what all names share.

    Raises:
        FileNotFoundError: If there is no such file.
        UnsafeCheckpoint: See :func:`read_checkpoint`.
        ValueError: If the file cannot be read, or does not hold the weights
            asked for.
    """
    content = read_checkpoint(path)
    tensors, is_average = _choose(content, averaged, path)
    if prefix is not None:
        prefix = _check_prefix(prefix, tensors, path)
    else:
        prefix = _find_prefix(tensors, averaged)
        if prefix not in ('', 'module.', *PARTS):
            print(f'read the backbone under {prefix!r} in {path}; --prefix '
                  'names another part')
    is_average = is_average or any(f'.{part}' in f'.{prefix}'
                                   for part in AVERAGED_WRAPPERS)
    backbone, others = _split(tensors, prefix)
    meta = _dict(content.get('meta'))
    return Source(
        backbone,
        others,
        prefix,
        is_average,
        path,
        sha256_of(path),
        metadata=_dict(meta.get(METADATA)),
        config=read_recorded(meta.get('cfg'), 'model').get('backbone'),
        images=_dict(_dict(meta.get(METADATA)).get('images'))
        or _images(meta.get('cfg')),
        training=training_of(meta))


def add_ema_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--prefix``, and ``--ema`` and ``--raw``, which set `averaged`.

    Args:
        parser (argparse.ArgumentParser): The parser of a command.
    """
    parser.add_argument(
        '--prefix',
        help='what the names of the backbone begin with in the file; by '
        'default it is found, and said')
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
    if averaged is None:
        averaged = swapped or (raw is None and average is not None)
    key = average if averaged and average else raw
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
    if averaged and average is None and not any(
            name.startswith(AVERAGED_WRAPPERS) for name in named):
        raise ValueError(f'expected running averages in {path}, such as '
                         "MMEngine's 'ema_state_dict', found none; leave out "
                         '--ema')
    # MMEngine's averaged model counts its steps beside the weights.
    if key == 'ema_state_dict':
        named.pop('steps', None)
    return named, key is not None and key == average


def _split(tensors: Tensors, prefix: str) -> Tuple[Tensors, Tensors]:
    """The backbone's tensors, and all others.

    Without a part at the end of the prefix, the backbone is all under it but
    the classifier.
    """
    outer = re.sub(r'(backbone|encoder)\.$', '', prefix)
    pattern = re.escape(prefix)
    if prefix == outer:
        pattern += r'(?!(head|fc)\.)'
    backbone, others = {}, {}
    for name, tensor in tensors.items():
        if re.match(pattern, name):
            backbone[name[len(prefix):]] = tensor
        else:
            others[re.sub(f'^{re.escape(outer)}', '', name)] = tensor
    return backbone, others


def _check_prefix(prefix: str, tensors: Tensors, path: Path) -> str:
    """A prefix that the user has named, with a point at its end."""
    prefix = prefix.rstrip('.') + '.' if prefix else ''
    if not any(name.startswith(prefix) for name in tensors):
        firsts = sorted({name.partition('.')[0] for name in tensors})
        raise ValueError(
            f'expected --prefix with the beginning of names in {path}, such '
            f'as {firsts[:9]}, got {prefix!r}')
    return prefix


def _find_prefix(tensors: Tensors, averaged: Optional[bool]) -> str:
    """What the names of the backbone begin with.

    Wrappers are removed one after another, and what all names share.
    """
    branches = (*RAW_WRAPPERS, *AVERAGED_WRAPPERS)
    if averaged:
        branches = (*AVERAGED_WRAPPERS, *RAW_WRAPPERS)
    prefix, names = '', list(tensors)
    while True:
        firsts = {
            name.partition('.')[0] + '.' if '.' in name else ''
            for name in names
        }
        known = [
            part for part in (*PARTS, *WRAPPERS, *branches) if part in firsts
        ]
        # Names that go on with numbers are a list's, a part of the network.
        if len(firsts) == 1 and len(names) > 1 and not any(
                name.partition('.')[2][:1].isdigit() for name in names):
            known += firsts
        # Models of transformers have an encoder beside their embeddings.
        if not known or not known[0] or 'embeddings.' in firsts:
            return prefix
        prefix += known[0]
        if known[0] in PARTS:
            return prefix
        names = [
            name[len(known[0]):] for name in names if name.startswith(known[0])
        ]


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
