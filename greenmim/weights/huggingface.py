# Copyright (c) greenmim authors. All rights reserved.
"""Folders of Hugging Face's transformers: weights and their config."""
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Tuple

from .reading import Source

CONFIG = 'config.json'
WEIGHTS = ('model.safetensors', 'pytorch_model.bin')
# The name that a model with a head gives to its backbone.
_BACKBONE = re.compile(r'(swinv2|swin|convnextv2|convnext|pvt_v2|vit)\.')


def find_weights(path: Path) -> Tuple[Path, Dict[str, Any]]:
    """The file of the weights in a folder, and the config beside it.

    Args:
        path: The folder, or the file itself.

    Raises:
        FileNotFoundError: If the folder does not hold the weights as one
            file.
        ValueError: If the config is no JSON.
    """
    if path.is_dir():
        found = [path / name for name in WEIGHTS if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(
                f'expected one of {list(WEIGHTS)} in {path}, found none; save '
                'the model as one file: model.save_pretrained(FOLDER, '
                "max_shard_size='100GB')")
        path = found[0]
    config = path.with_name(CONFIG)
    if not config.is_file():
        return path, {}
    try:
        content = json.loads(config.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'cannot read {config}: expected JSON, as '
                         f'transformers writes it ({error})') from error
    return path, content if isinstance(content, dict) else {}


def of_model(source: Source) -> Source:
    """Separate the backbone from the head, which its names tell apart.

    Args:
        source: As :func:`greenmim.weights.read_source` returns it.
    """
    tensors = {
        source.prefix + name: tensor
        for name, tensor in source.backbone.items()
    }
    tensors.update(source.others)
    match = next(filter(None, map(_BACKBONE.match, tensors)), None)
    prefix = match[0] if match else ''
    backbone = {
        name[len(prefix):]: tensor
        for name, tensor in tensors.items() if name.startswith(prefix)
    }
    others = {k: v for k, v in tensors.items() if not k.startswith(prefix)}
    return replace(source, backbone=backbone, others=others, prefix=prefix)
