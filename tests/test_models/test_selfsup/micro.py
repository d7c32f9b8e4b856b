# Copyright (c) greenmim authors. All rights reserved.
"""A GreenMIM model that trains on a CPU in seconds."""
import torch
from mmpretrain.registry import MODELS

NORM_CFG = dict(type='LN', eps=1e-6)


def micro_config(in_channels=3, **overrides):
    return dict(
        dict(
            type='greenmim.GreenMIM',
            backbone=dict(
                type='greenmim.GreenMIMSwinTransformer',
                arch=dict(
                    embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4,
                                                                   8]),
                in_channels=in_channels,
                window_size=4,
                drop_path_rate=0.,
                norm_cfg=NORM_CFG),
            neck=dict(
                type='greenmim.GreenMIMNeck',
                in_channels=128,
                embed_dims=32,
                num_heads=4,
                out_channels=32 * 32 * in_channels),
            head=dict(type='greenmim.GreenMIMHead')), **overrides)


def micro_model(randomise=True, **overrides):
    """The micro model, by default with every parameter random."""
    model = MODELS.build(micro_config(**overrides))
    if randomise:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=.1)
    return model
