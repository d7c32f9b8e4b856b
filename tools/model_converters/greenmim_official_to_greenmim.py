# Copyright (c) greenmim authors. All rights reserved.
"""Convert a checkpoint of the GreenMIM authors' Swin to this project's names.

The result initialises a ``greenmim.GreenMIM`` and, by
``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')``, a
Swin Transformer of MMPretrain with the settings that are printed. All of the
authors' LayerNorms have eps 1e-6, which is no tensor: set it as
``configs/_base_/models`` does.
"""
import argparse
import hashlib
import sys
from pathlib import Path
from typing import Dict, List

import torch
from torch import Tensor

from greenmim.models import GreenMIMNeck, GreenMIMSwinTransformer
from greenmim.models.utils import (convert_official_state_dict, neck_settings,
                                   swin_settings)
from greenmim.ops import MERGE_ORDERS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Convert a checkpoint of the GreenMIM authors (Swin).')
    parser.add_argument('src', type=Path, help='their .pth, or .safetensors')
    parser.add_argument('dst', type=Path, help='the .pth to write')
    parser.add_argument(
        '--merge-order',
        choices=MERGE_ORDERS,
        required=True,
        help='order of the patch-merging channels, which the file does not '
        "tell. The weights released in 2022 most likely have 'greenmim-2022'; "
        "code since the authors' last commit writes 'microsoft'. With the "
        'wrong order the file loads and the model is useless: compare the '
        'pre-training losses of both on real images')
    return parser.parse_args()


def load_official(path: Path) -> Dict[str, Tensor]:
    """Read the tensors under ``model``; no code in the file is run.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f'expected a checkpoint, found no file {path}')
    if path.suffix == '.safetensors':
        from safetensors.torch import load_file as load
    else:
        load = _load_pickle
    try:
        content = load(path)
    # Readers raise errors of many unrelated types on a damaged file.
    except Exception as error:
        raise ValueError(
            f'cannot read {path} ({type(error).__name__}): expected a '
            'complete checkpoint of tensors and plain values; this file is '
            'damaged, is no checkpoint, or holds objects that could run code'
        ) from error

    if path.suffix == '.safetensors':
        prefix = 'model.'
        content = dict(
            model={
                key[len(prefix):]: tensor
                for key, tensor in content.items() if key.startswith(prefix)
            })
    model = content.get('model') if isinstance(content, dict) else None
    if not isinstance(model, dict) or not all(
            isinstance(name, str) and isinstance(tensor, Tensor)
            for name, tensor in model.items()):
        raise ValueError("expected a file that holds named tensors under "
                         f"'model', found no such thing in {path}")
    return model


def _load_pickle(path: Path) -> dict:
    # Training options are stored beside the weights as a Namespace: a class
    # that holds attributes and runs nothing when it is read.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location='cpu', weights_only=True)


def compare(part: str, expected: Dict[str, Tensor],
            given: Dict[str, Tensor]) -> List[str]:
    """Compare the tensors of a part of the model in both directions.

    Returns:
        list[str]: One line for every tensor that does not match.
    """
    given = {k: v for k, v in given.items() if k.startswith(f'{part}.')}
    common = sorted(expected.keys() & given.keys())
    faults = []
    for key in common:
        ours, theirs = expected[key], given[key]
        if ours.shape != theirs.shape:
            faults.append(f'{key}: expected shape {tuple(ours.shape)}, got '
                          f'{tuple(theirs.shape)}')
        elif 'relative_position_index' in key and not ours.equal(theirs):
            faults.append(f'{key}: indexes the bias table in another order')
    matched = len(common) - len(faults)
    print(f'{part}: {matched} of {len(expected)} tensors matched')
    faults += [f'{k}: missing' for k in sorted(expected.keys() - given.keys())]
    faults += [f'{k}: unknown' for k in sorted(given.keys() - expected.keys())]
    return faults


def convert(src: Path, merge_order: str) -> dict:
    """Convert a file and check that every tensor has found its place.

    Returns:
        dict: A checkpoint of plain types.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a complete checkpoint of the authors' Swin.
    """
    converted, leftover = convert_official_state_dict(
        load_official(src), merge_order)
    settings = swin_settings(converted)
    backbone = GreenMIMSwinTransformer(**settings)
    neck = GreenMIMNeck(num_heads=1, **neck_settings(converted))
    faults = [f'{key}: unknown' for key in leftover]
    faults += compare('backbone', backbone.state_dict(prefix='backbone.'),
                      converted)
    faults += compare('neck', neck.state_dict(prefix='neck.'), converted)
    if faults:
        raise ValueError('\n  '.join([
            'expected every tensor to have a match, these have none (nothing '
            'is written):', *faults
        ]))
    print('it fits a backbone with', settings)
    digest = hashlib.sha256(src.read_bytes()).hexdigest()
    return dict(
        state_dict=converted,
        meta=dict(
            source=src.name,
            source_sha256=digest,
            merge_order=merge_order,
            backbone=settings))


def main() -> None:
    args = parse_args()
    try:
        checkpoint = convert(args.src, args.merge_order)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'{Path(__file__).name}: {error}')
    args.dst.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, args.dst)
    print(f'saved {args.dst} (merge order of the source: {args.merge_order})')


if __name__ == '__main__':
    main()
