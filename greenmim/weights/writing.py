# Copyright (c) greenmim authors. All rights reserved.
"""Files with a passport: weights, what they are and where they come from."""
import json
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

import torch
from safetensors.torch import save_file

from greenmim.version import __version__
from .convert import Backbone, Target, tensors_for
from .coverage import Coverage
from .layouts import Tensors
from .reading import METADATA, Source, sha256_of


def passport_of(backbone: Backbone, source: Source, file: str, layout: str,
                target: str) -> Dict[str, Any]:
    """What a file says of itself, in plain types.

    Args:
        backbone: As :func:`fit_to` returns it.
        source: The file that it comes from.
        file: The name of that file.
        layout: Its layout.
        target: The library that the new file is for.
    """
    return dict(
        layout=target,
        family=backbone.family and backbone.family.name,
        backbone=backbone.settings,
        window_size=list(backbone.windows),
        img_size=backbone.img_size,
        norm_eps=backbone.norm_eps,
        averaged=source.averaged,
        added=list(backbone.added),
        resized=list(backbone.resized),
        source=dict(file=file, sha256=source.sha256, layout=layout),
        greenmim=__version__)


def write_weights(path: Path,
                  backbone: Backbone,
                  target: Target,
                  passport: Dict[str, Any],
                  others: Optional[Tensors] = None) -> None:
    """Write a file for a library.

    Args:
        path: Its suffix is the target's.
        backbone: As :func:`fit_to` returns it.
        target: The library.
        passport: See :func:`passport_of`.
        others: Tensors beside the backbone.
    """
    tensors = tensors_for(backbone, target)
    path.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == '.safetensors':
        metadata = {'format': 'pt', METADATA: json.dumps(passport)}
        save_file({**tensors, **(others or {})}, path, metadata=metadata)
    else:
        torch.save(
            dict(
                meta={METADATA: passport},
                state_dict={
                    **tensors,
                    **(others or {})
                }), path)


def write_report(path: Path, passport: Dict[str, Any], backbone: Backbone,
                 *more: Coverage) -> Path:
    """Write what was converted, beside the file.

    Args:
        path: The file.
        passport: See :func:`passport_of`.
        backbone: What was read.
        more: What is known of the parts beside the backbone.

    Returns:
        Path: That of the report: the file's name and ``.json``.
    """
    coverage = {
        part.part:
        dict(
            total=part.total,
            matched=part.matched,
            unmatched=list(part.faults))
        for part in (backbone.coverage, *more)
    }
    report = dict(
        passport,
        file=path.name,
        sha256=sha256_of(path),
        coverage=coverage,
        left_out=list(backbone.left_out))
    out = path.with_name(path.name + '.json')
    out.write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')
    return out


def summarise(names: Sequence[str]) -> str:
    """Names; of those that begin alike, the beginning and their number.

    Args:
        names: Of tensors.
    """
    numbers = Counter(name.split('.')[0] for name in names)
    return ', '.join(
        next(name for name in names if name.split('.')[0] ==
             first) if number == 1 else f'{first}.* ({number})'
        for first, number in numbers.items())
