# Copyright (c) greenmim authors. All rights reserved.
"""Losses of a short training that must not change unnoticed.

A change that is meant to alter them (another initialisation, another mask
sampler) writes them again, and its commit says why they changed:

    python -m tests.test_golden
"""
import json
from pathlib import Path
from typing import Dict, List

import pytest
import torch

from greenmim.models import GreenMIM

GOLDEN = Path(__file__).parent / 'data' / 'golden_swin.json'
SCOPES = ('batch', 'image')
NUM_STEPS = 10


def train(mask_scope: str,
          dtype: torch.dtype = torch.float32,
          drop_path_rate: float = 0.2) -> List[float]:
    """Losses of ten steps of AdamW on images that a formula makes.

    All that training does is in it: initialisation, masks drawn by the model,
    windows that divide the map and windows that do not, drop path, the
    decoder and the normalised target.
    """
    torch.manual_seed(0)
    model = GreenMIM(
        backbone=dict(
            type='greenmim.GreenMIMSwinTransformer',
            arch=dict(
                embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
            img_size=(96, 160),
            window_size=7,
            drop_path_rate=drop_path_rate),
        neck=dict(
            type='greenmim.GreenMIMNeck',
            in_channels=128,
            embed_dims=32,
            depth=1,
            num_heads=4),
        head=dict(type='greenmim.GreenMIMHead'),
        mask_ratio=0.6,
        mask_scope=mask_scope)
    model.init_weights()
    model.train()
    model.to(dtype)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05)

    # waves of other lengths and directions in every image and channel
    y = torch.arange(96, dtype=torch.float64)[:, None]
    x = torch.arange(160, dtype=torch.float64)
    wave = torch.arange(1, 13, dtype=torch.float64).view(4, 3, 1, 1)
    images = torch.sin(wave * y / 17) + torch.cos((13 - wave) * x / 23)

    losses = []
    for _ in range(NUM_STEPS):
        loss = model(images.to(dtype), None, mode='loss')['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize('mask_scope', SCOPES)
def test_losses_are_the_golden_ones(mask_scope):
    golden: Dict[str, List[float]] = json.loads(GOLDEN.read_text())
    losses = train(mask_scope)
    assert losses == pytest.approx(golden[mask_scope], rel=1e-4)
    assert losses[-1] < 0.95 * losses[0]


def test_the_losses_do_not_depend_on_rounding():
    """Float64 gives the same to a tenth of the tolerance, so that the
    arithmetic of another CPU does too. (Drop path is off: torch draws other
    numbers in float64.)"""
    exact = train('image', torch.float64, drop_path_rate=0.)
    losses = train('image', drop_path_rate=0.)
    assert losses == pytest.approx(exact, rel=1e-5)


if __name__ == '__main__':
    GOLDEN.write_text(
        json.dumps({scope: train(scope)
                    for scope in SCOPES}, indent=2) + '\n')
    print(f'wrote {GOLDEN}')
