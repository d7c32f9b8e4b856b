# Copyright (c) greenmim authors. All rights reserved.
"""What the FastMIM authors' code computes on a tiny random model.

Swin at 128 px: embedding 8, depths 2/2/2/2, heads 1/2/4/4, window 4; decoder
64 channels, 2 blocks; every LayerNorm has eps 1e-5; HOG, normalised.
"""
from functools import partial
from pathlib import Path

from greenmim.models import (GreenMIMHead, GreenMIMNeck,
                             GreenMIMSwinTransformer, MaskTokenMIM)
from tests import official_fixture

PATH = Path(__file__).parent / 'data' / 'fastmim_swin.safetensors'

load_fixture = partial(official_fixture.load_fixture, PATH)
official_weights = partial(official_fixture.official_weights, PATH)


def build_model() -> MaskTokenMIM:
    """The model that the converted weights fit, in evaluation mode."""
    backbone = GreenMIMSwinTransformer(
        arch=dict(embed_dims=8, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 4]),
        img_size=128,
        window_size=4)
    neck = GreenMIMNeck(
        in_channels=64,
        embed_dims=64,
        depth=2,
        num_heads=2,
        out_channels=432,
        norm_cfg=dict(type='LN', eps=1e-5),
        pos_embed=False,
        mask_token=False)
    head = GreenMIMHead(target=dict(type='greenmim.HOGTarget'))
    return MaskTokenMIM(backbone, neck, head, mask_token='pixel').eval()
