# Copyright (c) greenmim authors. All rights reserved.
"""A narrow random Swin, and checkpoints as trainings of it would leave."""
from pathlib import Path
from typing import Any, Dict

import torch
from mmengine.config import Config
from torch import Tensor, nn

from greenmim.models import GreenMIMSwinTransformer

NORM = dict(type='LN', eps=1e-6)
SWIN = dict(
    arch=dict(embed_dims=8, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 4]),
    img_size=224,
    window_size=7,
    norm_cfg=NORM,
    patch_cfg=dict(norm_cfg=NORM),
    stage_cfgs=dict(
        block_cfgs=dict(norm_cfg=NORM), downsample_cfg=dict(norm_cfg=NORM)))


def make_swin(**changes: Any) -> GreenMIMSwinTransformer:
    """In evaluation mode, with every parameter random."""
    torch.manual_seed(0)
    return randomise(GreenMIMSwinTransformer(**{**SWIN, **changes}))


def randomise(model: nn.Module) -> nn.Module:
    for name, param in model.named_parameters():
        mean = 1. if 'norm' in name and name.endswith('weight') else 0.
        nn.init.normal_(param, mean, std=0.2)
    model.eval()
    return model


def config_text(**changes: Any) -> str:
    """What MMEngine writes into a checkpoint's ``meta``."""
    backbone = dict(
        type='greenmim.GreenMIMSwinTransformer', **{
            **SWIN,
            **changes
        })
    return Config(dict(lr=1., model=dict(backbone=backbone))).pretty_text


def save_training(path: Path,
                  backbone: nn.Module,
                  changes: Dict[str, Any] = {},
                  **others: Any) -> Path:
    """Save what a run leaves, tensors changed or (None) left out."""
    tensors: Dict[str, Tensor] = {
        f'backbone.{name}': tensor
        for name, tensor in backbone.state_dict().items()
    }
    tensors['neck.mask_token'] = torch.zeros(1, 1, 4)
    tensors.update(changes)
    tensors = {k: v for k, v in tensors.items() if v is not None}
    torch.save({**dict(state_dict=tensors, meta={}), **others}, path)
    return path
