# Copyright (c) greenmim authors. All rights reserved.
"""The features of the student's own average as target.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from typing import Any, List, Optional

import torch
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn

from greenmim.ops import unit_grid
from greenmim.registry import MODELS
from .base import Target
from .teacher_target import unit_features


@MODELS.register_module()
class EMATarget(Target):
    r"""Latent prediction: the features of a moving average of the backbone.

    The teacher has the student's architecture; its parameters are
    :math:`t \leftarrow (1 - m)\, t + m\, s`, after each step of the student's
    :math:`s`, and begin as a copy. It sees the unmasked images, as in
    `data2vec <https://arxiv.org/abs/2202.03555>`_ (section 3), and its last
    feature map, averaged in each unit, is predicted.

    The teacher is saved in checkpoints, so that a resumed run continues with
    it, and is never part of an exported backbone.

    Args:
        unit_size (int): Side of a mask unit in pixels. Defaults to 32.
        momentum (float): :math:`m`, in (0, 1). Defaults to 0.004.
        norm (bool): Give each unit's vector mean 0 and variance 1 over its
            channels; without it, the target may collapse to a constant.
            Defaults to True.
    """

    draws_images = False
    reads_whole_image = True

    def __init__(self,
                 unit_size: int = 32,
                 momentum: float = 0.004,
                 norm: bool = True) -> None:
        super().__init__()
        self.unit_size = unit_size
        self.momentum = momentum
        self.norm = norm
        self.teacher: Optional[ExponentialMovingAverage] = None
        # In a list, so that it is not registered twice.
        self._student: List[nn.Module] = []

    def attach(self, algorithm: Any) -> None:
        """Follow the algorithm's backbone. See the base class."""
        self._student = [algorithm.backbone]
        self.teacher = ExponentialMovingAverage(algorithm.backbone,
                                                self.momentum)
        self.teacher.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, C, H, W) into (B, L, channels of the backbone).

        In training mode, the teacher first takes in the student's last step.

        Raises:
            ValueError: If the target belongs to no algorithm, or the backbone
                returns no feature maps.
        """
        if self.teacher is None:
            raise ValueError('expected an EMATarget that belongs to an '
                             'algorithm, whose backbone it follows; call '
                             'attach(algorithm) first')
        if self.training or not self.teacher.steps:
            self.teacher.update_parameters(self._student[0])
        grid = unit_grid(images.shape[2:], self.unit_size)
        outs = self.teacher.eval()(images)
        return unit_features(outs, grid, images.dtype, self.norm)
