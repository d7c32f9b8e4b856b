# Copyright (c) greenmim authors. All rights reserved.
"""Writes converted weights, with metadata and a report."""
import json
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from safetensors.torch import save_file

from greenmim.version import __version__
from .card import card_of, size_in
from .convert import TARGETS, Backbone, size_of, tensors_for
from .coverage import Coverage
from .huggingface import CONFIG
from .layouts import Tensors
from .reading import METADATA, Source, sha256_of


def write_weights(path: Path,
                  backbone: Backbone,
                  library: str,
                  source: Source,
                  layout: str = 'mmpretrain',
                  others: Optional[Tensors] = None,
                  coverages: Tuple[Coverage, ...] = (),
                  licence: Optional[str] = None) -> Path:
    """Write a file for a library, and a report beside it.

    Args:
        path: The file, with the suffix of the target, or its folder.
        backbone: As :func:`fit_to` returns it.
        library: The library, a key of ``TARGETS``.
        source: The content of the original file.
        layout: The layout of that file. Defaults to ``'mmpretrain'``.
        others: Further tensors, with their prefixes.
        coverages: The checks of these.
        licence: That of the weights. Defaults to None, the recorded one.

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
        card=model_card(source, backbone.img_size, licence),
        source=dict(file=source.file, sha256=source.sha256, layout=layout),
        greenmim=__version__)
    target = TARGETS[library]
    tensors = {**tensors_for(backbone, target), **(others or {})}
    file = path
    if target.folder:
        file = path / 'model.safetensors'
        config = huggingface_config(backbone, metadata['card'])
        path.mkdir(parents=True, exist_ok=True)
        for name, content in config.items():
            text = json.dumps(content, indent=2) + '\n'
            (path / name).write_text(text, encoding='utf-8')
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == '.safetensors':
        texts = {'format': 'pt', METADATA: json.dumps(metadata)}
        save_file(tensors, file, metadata=texts)
    else:
        torch.save(dict(meta={METADATA: metadata}, state_dict=tensors), file)

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
        file=file.name,
        sha256=sha256_of(file),
        coverage=coverage,
        left_out=list(backbone.left_out))
    out = path.with_name(path.name + '.json')
    out.write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')
    return out


def model_card(source: Source,
               img_size: Any,
               licence: Optional[str] = None) -> Dict[str, Any]:
    """The model card of a file.

    Args:
        source: The content of the file.
        img_size: Size of its images; None if not recorded.
        licence: That of the weights. Defaults to None, the recorded one.

    Returns:
        dict: Normalisation, image size, training and licence, see
        :func:`greenmim.weights.card.card_of`.
    """
    before = source.metadata.get('card') or {}
    earlier = before.get('training')
    training = source.training or (earlier
                                   if isinstance(earlier, dict) else {})
    return card_of(source.images, img_size, training, licence
                   or before.get('licence'))


def huggingface_config(backbone: Backbone,
                       card: Dict[str, Any]) -> Dict[str, Dict[str, Any]]:
    """The contents of the files beside the weights, by their names.

    Args:
        backbone: As :func:`fit_to` returns it.
        card: Its model card.

    Raises:
        ValueError: If the class of transformers does not have the backbone.
    """
    family = backbone.family
    assert family is not None
    size, norm = size_of(backbone), card['normalisation']
    height, width = size_in(card, size)
    return {
        CONFIG:
        family.transformers_model(backbone.settings, size, backbone.norm_eps,
                                  backbone.windows),
        'preprocessor_config.json':
        dict(
            image_processor_type='ViTImageProcessor',
            do_resize=True,
            size=dict(height=height, width=width),
            resample=3,
            do_rescale=True,
            rescale_factor=1 / 255,
            do_normalize=True,
            image_mean=[value / 255 for value in norm['mean']],
            image_std=[value / 255 for value in norm['std']])
    }


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
