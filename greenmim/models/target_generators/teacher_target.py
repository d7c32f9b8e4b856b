# Copyright (c) greenmim authors. All rights reserved.
"""Features as target.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
import math
from typing import Optional

import torch
from mmengine.model import initialize
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from greenmim.ops import unit_grid, units_of_map
from greenmim.registry import MODELS
from .base import Target


@MODELS.register_module()
class TeacherTarget(Target):
    r"""The features of a frozen backbone, averaged in each unit.

    The features are the teacher's last feature map for the unmasked images,
    as the student's data preprocessor returns them. Normalised, a unit's
    vector has mean 0 and variance 1 over its channels.

    The teacher is not a submodule: it is not trained, initialised or saved
    with the student, whose checkpoints load without it. It is built and
    loaded when the weights are initialised or a target is first computed,
    and is always in evaluation mode.

    Args:
        backbone (dict): Config of a backbone that returns feature maps
            (B, C, h, w), whose sides are multiples of the unit grid's, for
            example a ``VisionTransformer`` with ``out_type='featmap'``. Its
            weights are given by
            ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        unit_size (int): Side of a mask unit in pixels. Defaults to 32.
        norm (bool): Normalise unit by unit. Defaults to True.

    Raises:
        ValueError: If the backbone has no such ``init_cfg``; while loading,
            if the file lacks parameters.
    """

    draws_images = False
    reads_whole_image = True

    def __init__(self,
                 backbone: dict,
                 unit_size: int = 32,
                 norm: bool = True) -> None:
        super().__init__()
        init_cfg = backbone.get('init_cfg')
        if not isinstance(init_cfg, dict) or (init_cfg.get('type')
                                              != 'Pretrained'):
            raise ValueError(
                'expected a teacher with weights, backbone=dict(..., '
                "init_cfg=dict(type='Pretrained', checkpoint=FILE)), got "
                f'init_cfg={init_cfg!r}')
        self.unit_size = unit_size
        self.norm = norm
        self._backbone_cfg = backbone
        # In a list, so that it is not registered as a submodule.
        self._teacher: list = []

    def init_weights(self) -> None:
        """Load the teacher, so that a missing file is found at once."""
        self._load()

    def _load(self, device: Optional[torch.device] = None) -> nn.Module:
        if not self._teacher:
            teacher = MMPRETRAIN_MODELS.build(self._backbone_cfg)
            # MMEngine ignores missing keys and shapes that differ, and
            # `init_weights` would draw some of these parameters.
            for parameter in teacher.parameters():
                nn.init.constant_(parameter, math.nan)
            initialize(teacher, self._backbone_cfg['init_cfg'])
            self._check_loaded(teacher)
            teacher.requires_grad_(False)
            teacher.eval()  # MMPretrain's Swin returns nothing
            self._teacher.append(teacher)
        return self._teacher[0].to(device)

    def _check_loaded(self, teacher: nn.Module) -> None:
        """Refuse a teacher some of whose parameters were not loaded."""
        parameters = dict(teacher.named_parameters())
        missing = [
            name for name, parameter in parameters.items()
            if not bool(parameter.isfinite().all())
        ]
        if missing:
            init_cfg = self._backbone_cfg['init_cfg']
            raise ValueError(
                'expected a checkpoint with all weights of the teacher, but '
                f'{init_cfg["checkpoint"]} has no finite values of the right '
                f'shape for {len(missing)} of {len(parameters)} parameters, '
                f'{missing[0]} for example; give init_cfg the prefix that '
                "names have in the file, as prefix='backbone.', and build the "
                'backbone as it was trained')

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, C, H, W) into (B, L, channels of the teacher).

        Raises:
            ValueError: If the teacher returns no map that fits the units.
        """
        outs = self._load(images.device)(images)
        feature = outs[-1] if isinstance(outs, (tuple, list)) else outs
        if not isinstance(feature, Tensor) or feature.ndim != 4:
            shape = getattr(feature, 'shape', type(feature).__name__)
            raise ValueError(
                'expected a teacher that returns feature maps (B, C, h, w), '
                f"got {shape}; a VisionTransformer needs out_type='featmap'")
        grid = unit_grid(images.shape[2:], self.unit_size)
        target = units_of_map(feature.to(images.dtype), grid).mean(2)
        if self.norm:
            target = F.layer_norm(target, target.shape[-1:])
        return target
