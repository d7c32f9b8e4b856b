# Copyright (c) greenmim authors. All rights reserved.
"""Writes converted weights, with metadata and a report."""
import json
from collections import Counter
from pathlib import Path
from typing import Optional, Sequence, Tuple

import torch
from safetensors.torch import save_file

from greenmim.version import __version__
from .convert import TARGETS, Backbone, tensors_for
from .coverage import Coverage
from .layouts import Tensors
from .reading import METADATA, Source, sha256_of


def write_weights(
    path: Path,
    backbone: Backbone,
    library: str,
    source: Source,
    layout: str = 'mmpretrain',
    others: Optional[Tensors] = None,
    coverages: Tuple[Coverage, ...] = ()
) -> Path:
    """Write a file for a library, and a report beside it.

    Args:
        path: The file, with the suffix of the target.
        backbone: As :func:`fit_to` returns it.
        library: The library, a key of ``TARGETS``.
        source: The content of the original file.
        layout: The layout of that file. Defaults to ``'mmpretrain'``.
        others: Further tensors, with their prefixes.
        coverages: The checks of these.

    Returns:
        Path: The report, named as the file with ``.json`` appended.
    """
    metadata = dict(
        layout=library,
        family=backbone.family and backbone.family.name,
        backbone=backbone.settings,
        window_size=backbone.windows,
        img_size=backbone.img_size,
        norm_eps=backbone.norm_eps,
        averaged=source.averaged,
        added=list(backbone.added),
        resized=list(backbone.resized),
        images=source.images,
        source=dict(file=source.file, sha256=source.sha256, layout=layout),
        greenmim=__version__)
    target = TARGETS[library]
    tensors = {**tensors_for(backbone, target), **(others or {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == '.safetensors':
        texts = {'format': 'pt', METADATA: json.dumps(metadata)}
        save_file(tensors, path, metadata=texts)
    else:
        torch.save(dict(meta={METADATA: metadata}, state_dict=tensors), path)

    coverage = {
        part.part:
        dict(
            total=part.total,
            matched=part.matched,
            unmatched=list(part.faults))
        for part in (backbone.coverage, *coverages)
    }
    report = dict(
        metadata,
        file=path.name,
        sha256=sha256_of(path),
        coverage=coverage,
        left_out=list(backbone.left_out))
    out = path.with_name(path.name + '.json')
    out.write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')
    return out


def summarise(names: Sequence[str]) -> str:
    """List names, but only the number of those with the same first part.

    Args:
        names: Names of tensors.
    """
    numbers = Counter(name.split('.')[0] for name in names)
    return ', '.join(
        next(name for name in names if name.split('.')[0] ==
             first) if number == 1 else f'{first}.* ({number})'
        for first, number in numbers.items())
