# Copyright (c) greenmim authors. All rights reserved.
"""Weights of any library out of a file, without running its code."""
import argparse
import collections
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import torch
from mmengine.utils import digit_version
from safetensors import safe_open
from torch import Tensor

from .layouts import Tensors
from .recorded_config import read_model_config

# Where files hold the weights themselves, and where their running averages.
# MMEngine's EMAHook swaps the two: `state_dict` is then the average.
RAW = ('state_dict', 'model')
AVERAGES = ('state_dict_ema', 'model_ema')
# A safetensors file has one level: what was a container is a prefix there.
CONTAINER = 'model.'
PARTS = ('backbone.', 'encoder.')
PASSPORT = 'greenmim'


@dataclass(frozen=True)
class Source:
    """What a file holds.

    Args:
        backbone: The backbone's tensors, without a prefix.
        others: All other tensors.
        prefix: What was taken off the backbone's names.
        averaged: Whether these are running averages; None if not known.
        sha256: Of the file, in hexadecimal.
        passport: What an export or import wrote about the weights.
        config: The backbone's config that the training wrote down.
    """
    backbone: Tensors
    others: Tensors
    prefix: str
    averaged: bool
    sha256: str
    passport: Dict[str, Any] = field(default_factory=dict)
    config: Optional[Dict[str, Any]] = None


def read_source(path: Path, averaged: Optional[bool] = None) -> Source:
    """Read a checkpoint; no code in it is run.

    Args:
        path (Path): A file of PyTorch or, with the suffix ``.safetensors``,
            of safetensors.
        averaged (bool, optional): Take the running averages (True) or the
            weights themselves (False). Defaults to None: those that the file
            gives to whoever loads it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds no weights, or not those that are
            asked for.
    """
    if not path.is_file():
        raise FileNotFoundError(f'expected a checkpoint, found no file {path}')
    read = (
        _read_safetensors if path.suffix == '.safetensors' else _read_pickle)
    try:
        content, passport = read(path)
    # Readers raise errors of many unrelated types on a damaged file.
    except Exception as error:
        raise ValueError(
            f'cannot read {path} ({type(error).__name__}): expected a '
            'complete checkpoint of tensors and plain values; this file is '
            'damaged, is no checkpoint, or holds objects that could run code'
        ) from error
    content = content if isinstance(content, dict) else {}
    meta = content.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    tensors, is_average = _choose(content, averaged, path)
    backbone, others, prefix = _split(tensors)
    return Source(
        backbone,
        others,
        prefix,
        is_average,
        sha256_of(path),
        passport=passport or _dict(meta.get(PASSPORT)),
        config=read_model_config(meta.get('cfg')).get('backbone'))


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        for chunk in iter(lambda: file.read(2**20), b''):
            digest.update(chunk)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> Tuple[Any, Dict[str, Any]]:
    with safe_open(str(path), framework='pt') as file:
        passport = _dict(
            json.loads((file.metadata() or {}).get(PASSPORT, '{}')))
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    nested = {
        name[len(CONTAINER):]: tensor
        for name, tensor in tensors.items() if name.startswith(CONTAINER)
    }
    return nested or tensors, passport


def _read_pickle(path: Path) -> Tuple[Any, Dict[str, Any]]:
    # Training options stand beside the weights: a Namespace holds attributes
    # and runs nothing when it is read, and a CfgNode of yacs is read as the
    # dict that it is.
    allowed: List[Any] = [argparse.Namespace]
    if digit_version(torch.__version__) >= digit_version('2.6'):
        allowed.append((collections.OrderedDict, 'yacs.config.CfgNode'))
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location='cpu', weights_only=True), {}


def _choose(content: Dict[Any, Any], averaged: Optional[bool],
            path: Path) -> Tuple[Tensors, bool]:
    """The named tensors asked for, and whether they are averages."""
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
    tensors = content if key is None else content[key]
    if not isinstance(tensors, dict):
        tensors = {}
    named = {k: v for k, v in tensors.items() if isinstance(v, Tensor)}
    if not named or not all(isinstance(name, str) for name in named):
        raise ValueError(
            f'expected named tensors in {path}, at the top or under one of '
            f'{RAW + AVERAGES}, found something else')
    others = sorted(str(name) for name in tensors.keys() - named.keys())
    if others:
        raise ValueError(f'expected tensors alone in {path}, found also '
                         f'{others[:3]}')
    # The averaging module counts its steps beside the weights.
    if key == 'ema_state_dict':
        named.pop('steps', None)
    return named, averaged


def _split(tensors: Tensors) -> Tuple[Tensors, Tensors, str]:
    """The backbone's tensors, all others, and the backbone's prefix."""
    outer = 'module.' if all(k.startswith('module.') for k in tensors) else ''
    tensors = {name[len(outer):]: t for name, t in tensors.items()}
    for part in PARTS:
        backbone = {
            name[len(part):]: tensor
            for name, tensor in tensors.items() if name.startswith(part)
        }
        if backbone:
            others = {
                name: tensor
                for name, tensor in tensors.items()
                if not name.startswith(part)
            }
            return backbone, others, outer + part
    others = {k: v for k, v in tensors.items() if re.match(r'head\.|fc\.', k)}
    backbone = {k: v for k, v in tensors.items() if k not in others}
    return backbone, others, outer


def _dict(value: Any) -> Dict[str, Any]:
    return value if isinstance(value, dict) else {}
