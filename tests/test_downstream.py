# Copyright (c) greenmim authors. All rights reserved.
"""The backbone in MMDetection and MMSegmentation, built from their scopes."""
import importlib

import pytest
import torch
from mmengine.registry import DefaultScope

from tests.micro import SWIN_ARCH

pytestmark = pytest.mark.downstream

BACKBONE = dict(
    type='greenmim.GreenMIMSwinTransformer',
    arch=SWIN_ARCH,
    img_size=64,
    out_indices=(0, 1, 2, 3),
    window_size=4,
    pad_small_map=True)


@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
def test_backbone_builds_in_scope(library):
    registry = importlib.import_module(f'{library}.registry').MODELS
    with DefaultScope.overwrite_default_scope(library):
        backbone = registry.build(BACKBONE)
    backbone.eval()
    with torch.no_grad():
        features = backbone(torch.rand(2, 3, 64, 96))
    assert [tuple(feature.shape) for feature in features] == [(2, 8, 16, 24),
                                                              (2, 16, 8, 12),
                                                              (2, 32, 4, 6),
                                                              (2, 64, 2, 3)]
    assert all(feature.isfinite().all() for feature in features)


def test_compiled_operators_work():
    from mmcv.ops import nms
    boxes = torch.tensor([[0., 0., 9., 9.], [1., 0., 9., 9.],
                          [20., 20., 29., 29.]])
    _, kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), iou_threshold=0.5)
    assert kept.tolist() == [0, 2]
