# Copyright (c) greenmim authors. All rights reserved.
"""The recipes in configs/, and what their file names and records say."""
import ast
import re
from functools import lru_cache
from pathlib import Path
from typing import Dict, List, Tuple

import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from .conftest import CHECKOUT

CONFIGS = CHECKOUT / 'configs'
FILES = sorted(CONFIGS.rglob('*.py'))
RECIPES = [path for path in FILES if '_base_' not in path.parts]
DOWNSTREAM = [path for path in RECIPES if path.parent.name.startswith('mm')
              and path.parent.name != 'mmselfsup']  # yapf: disable
CLASSIFICATION = [
    path for path in RECIPES
    if path.parent.name == 'classification' or path.name.startswith(('swin-',
                                                                     'joint_'))
]
PRE_TRAINING = [
    path for path in RECIPES if path not in DOWNSTREAM + CLASSIFICATION
]

# Loaded once; nobody changes what is returned.
load = lru_cache(maxsize=None)(Config.fromfile)


def recipe_id(path: Path) -> str:
    return path.relative_to(CONFIGS).with_suffix('').as_posix()


def find(name: str) -> Path:
    """The recipe of a file name."""
    path, = (path for path in RECIPES if path.stem == name)
    return path


def record_of(path: Path) -> Dict[str, str]:
    """The fields of a recipe's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text('utf-8')))
    return dict(re.findall(r'^(\w+): ((?:.|\n    )+)', text, re.M))


def batch_of(path: Path) -> Tuple[int, int]:
    """Number of GPUs and of images on each, by the file name."""
    gpus, images = re.search(r'_(\d+)xb(\d+)-', path.stem).groups()
    return int(gpus), int(images)


def length_of(path: Path) -> int:
    """Epochs or iterations, by the file name; MMDetection's 1x is 12."""
    number, unit = re.search(r'xb\d+-(?:.*-)?(\d+)([eikx])_',
                             path.stem).groups()
    return int(number) * dict(e=1, i=1, k=1000, x=12)[unit]


def pixels_of(path: Path) -> int:
    """Height and width of the images, by the file name."""
    found = re.search(r'-(\d+(?:to)?\d+)px$', path.stem)
    if found:
        return int(found[1].split('to')[-1])
    return load(path).model.backbone.get('img_size', 224)


def check_windows(path: Path, backbone: nn.Module) -> None:
    """The windows of a Swin are those of the file name, and divide its maps.
    """
    named = re.search(r'swin-.*-w(\d+)', path.stem)
    side = pixels_of(path) // 4
    for stage in backbone.stages if named else ():
        window = min(int(named[1]), side)
        assert side % window == 0
        for block in stage.blocks:
            attention = getattr(block.attn, 'w_msa', block.attn)
            assert tuple(attention.window_size) == (window, window)
        side //= 2


def learning_rates(config: Config) -> List[float]:
    """The rate of each epoch's first iteration, or of each iteration."""
    epochs = config.train_cfg.get('max_epochs')
    length = epochs or config.train_cfg.max_iters
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], config.optim_wrapper.optimizer.lr)
    schedulers = []
    for cfg in config.param_scheduler:
        cfg = dict(dict(end=length), **cfg)
        kind = PARAM_SCHEDULERS.get(cfg.pop('type'))
        if epochs:
            assert cfg.pop('convert_to_iter_based')
            make, cfg['epoch_length'] = kind.build_iter_from_epoch, 1
        else:
            make = kind
        schedulers.append(make(optimizer, **cfg))
        assert not schedulers[-1].by_epoch
    rates = []
    for _ in range(length):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates
