# Copyright (c) greenmim authors. All rights reserved.
"""Write the backbone of a pre-training checkpoint to a file of its own.

The file initialises the dense parent of the backbone, such as MMPretrain's
``SwinTransformer``, by ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
"""
import argparse
import sys
from pathlib import Path
from typing import Dict

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from greenmim.engine.checkpoint import read_state_dict
from greenmim.registry import MODELS

PREFIX = 'backbone.'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Extract the backbone of a pre-training checkpoint')
    parser.add_argument('config', help='config of the pre-training')
    parser.add_argument('checkpoint', help='checkpoint of the pre-training')
    parser.add_argument('out', type=Path, help='the file to write')
    return parser.parse_args()


def extract(cfg: Config, checkpoint: str) -> Dict[str, Tensor]:
    """Take the backbone's tensors out of a checkpoint, every one of them.

    Raises:
        ValueError: If a tensor of the backbone is missing, unknown or of
            another shape than the config says.
    """
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    given = {
        key[len(PREFIX):]: value
        for key, value in read_state_dict(checkpoint).items()
        if key.startswith(PREFIX)
    }
    # Built for the names and shapes; `init_cfg` is not needed for these.
    backbone = MODELS.build({**cfg.model.backbone, 'init_cfg': None})
    expected = backbone.state_dict()
    faults = [f'{key}: missing' for key in expected if key not in given]
    faults += [f'{key}: unknown' for key in given if key not in expected]
    faults += [
        f'{key}: expected shape {tuple(expected[key].shape)}, got '
        f'{tuple(given[key].shape)}' for key in expected
        if key in given and expected[key].shape != given[key].shape
    ]
    matched = sum(key in given and given[key].shape == expected[key].shape
                  for key in expected)
    print(f'{matched} of {len(expected)} tensors of the backbone matched')
    if faults:
        raise ValueError('\n  '.join([
            f'expected the backbone of {cfg.filename} in {checkpoint}, but '
            'these tensors do not match (nothing is written):', *faults
        ]))
    return {key: given[key] for key in expected}


def main() -> None:
    args = parse_args()
    try:
        state_dict = extract(Config.fromfile(args.config), args.checkpoint)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'{Path(__file__).name}: {error}')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state_dict, args.out)
    print(f'{args.out} holds the backbone; use it with\n'
          f"    init_cfg=dict(type='Pretrained', checkpoint='{args.out}')")


if __name__ == '__main__':
    main()
