# Copyright (c) greenmim authors. All rights reserved.
"""What the GreenMIM authors' code computes on a tiny random model.

Swin at 224 px: embedding 8, depths 2/2/2/2, heads 1/2/4/4, window 7; decoder
32 channels, 1 block, 4 heads; every LayerNorm has eps 1e-6.
"""
from dataclasses import replace
from pathlib import Path
from typing import Dict

from safetensors.torch import load_file
from torch import Tensor

from greenmim.models import (GreenMIM, GreenMIMHead, GreenMIMNeck,
                             GreenMIMSwinTransformer)
from greenmim.weights import convert_neck
from greenmim.weights.swin import Swin
from tests.micro_checkpoint import SWIN

PATH = Path(__file__).parent / 'data' / 'swin_ws7_224.safetensors'


def load_fixture(path: Path = PATH) -> Dict[str, Tensor]:
    """Inputs, outputs and, under ``model.``, the authors' weights."""
    return load_file(path)


def official_weights(path: Path = PATH) -> Dict[str, Tensor]:
    """The weights in the authors' names."""
    return {
        name[len('model.'):]: tensor
        for name, tensor in load_fixture(path).items()
        if name.startswith('model.')
    }


def convert_official(weights: Dict[str, Tensor],
                     merge_order: str) -> Dict[str, Tensor]:
    """The weights in our names, as if their order of merging were this."""
    swin = Swin()
    layout = replace(swin.layouts['greenmim'], merge_order=merge_order)
    swin.layouts = dict(theirs=layout)
    encoder = {
        name[len('encoder.'):]: tensor
        for name, tensor in weights.items() if name.startswith('encoder.')
    }
    backbone, unexpected = swin.from_layout(encoder, 'theirs')
    neck, _ = convert_neck({
        name: tensor
        for name, tensor in weights.items() if not name.startswith('encoder.')
    })
    assert not unexpected
    return {
        **{f'backbone.{name}': tensor for name, tensor in backbone.items()},
        **neck
    }  # yapf: disable


def build_model() -> GreenMIM:
    """The model that the converted weights fit, in evaluation mode."""
    backbone = GreenMIMSwinTransformer(**SWIN)
    neck = GreenMIMNeck(in_channels=64, embed_dims=32, num_heads=4)
    return GreenMIM(backbone, neck, GreenMIMHead()).eval()
