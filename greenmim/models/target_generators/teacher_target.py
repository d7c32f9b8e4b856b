# Copyright (c) greenmim authors. All rights reserved.
"""The features of another network as target.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
import math
from typing import Any, Optional, Sequence, Tuple

import torch
from mmengine.model import initialize
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from greenmim.ops import unit_grid, units_of_map
from greenmim.ops.mask_unit import Grid
from greenmim.registry import MODELS
from .base import Target
from .teachers import Teacher


@MODELS.register_module()
class TeacherTarget(Target):
    r"""The features of a frozen backbone, averaged in each unit.

    The features are the teacher's last feature map for the unmasked images.
    Normalised, a unit's vector has mean 0 and variance 1 over its channels.

    A :class:`TimmTeacher` or :class:`TransformersTeacher` sees the images
    with its own normalisation, scaled so that its features fill every unit
    evenly: each unit spans the number of features per side, one or more, that
    changes the image's size least. A backbone of MMPretrain sees them as the
    student does, after the data preprocessor.

    The teacher is not a submodule: it is not trained, initialised or saved
    with the student, whose checkpoints load without it. It is built and
    loaded when the weights are initialised or a target is first computed,
    and is always in evaluation mode.

    Args:
        backbone (dict): Config of the teacher: a :class:`TimmTeacher`, a
            :class:`TransformersTeacher`, or a backbone of MMPretrain that
            returns feature maps (B, C, h, w), whose sides are multiples of
            the unit grid's, for example a ``VisionTransformer`` with
            ``out_type='featmap'``, whose weights are given by
            ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        unit_size (int): Side of a mask unit in pixels. Defaults to 32.
        norm (bool): Normalise unit by unit. Defaults to True.

    Raises:
        ValueError: If a backbone of MMPretrain has no such ``init_cfg``; while
            loading, if the file lacks parameters.
    """

    draws_images = False
    reads_whole_image = True

    def __init__(self,
                 backbone: dict,
                 unit_size: int = 32,
                 norm: bool = True) -> None:
        super().__init__()
        init_cfg = backbone.get('init_cfg')
        pretrained = isinstance(init_cfg, dict) and (init_cfg.get('type')
                                                     == 'Pretrained')
        if not pretrained and not _loads_itself(backbone):
            raise ValueError(
                'expected a teacher with weights, backbone=dict(..., '
                "init_cfg=dict(type='Pretrained', checkpoint=FILE)), got "
                f'init_cfg={init_cfg!r}')
        self.unit_size = unit_size
        self.norm = norm
        self._backbone_cfg = backbone
        # In a list, so that it is not registered as a submodule.
        self._teacher: list = []
        self._to_rgb: Optional[Tuple[Tensor, Tensor]] = None

    def attach(self, algorithm: Any) -> None:
        """Learn how the data preprocessor normalises. See the base class."""
        if _loads_itself(self._backbone_cfg):
            self._to_rgb = _undo(algorithm.data_preprocessor)

    def init_weights(self) -> None:
        """Load the teacher, so that a missing file is found at once."""
        self._load()

    def _load(self, device: Optional[torch.device] = None) -> nn.Module:
        if not self._teacher:
            teacher = MMPRETRAIN_MODELS.build(self._backbone_cfg)
            if not isinstance(teacher, Teacher):
                self._initialize(teacher)
            teacher.requires_grad_(False)
            teacher.eval()  # MMPretrain's Swin returns nothing
            self._teacher.append(teacher)
        return self._teacher[0].to(device)

    def _initialize(self, teacher: nn.Module) -> None:
        """Load a backbone of MMPretrain, refuse one with missing values."""
        # MMEngine ignores missing keys and shapes that differ, and
        # `init_weights` would draw some of these parameters.
        parameters = dict(teacher.named_parameters())
        for parameter in parameters.values():
            nn.init.constant_(parameter, math.nan)
        init_cfg = self._backbone_cfg['init_cfg']
        initialize(teacher, init_cfg)
        missing = [
            name for name, parameter in parameters.items()
            if not bool(parameter.isfinite().all())
        ]
        if missing:
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
        teacher = self._load(images.device)
        grid = unit_grid(images.shape[2:], self.unit_size)
        if isinstance(teacher, Teacher):
            images = self._images_of(teacher, images, grid)
        return unit_features(teacher(images), grid, images.dtype, self.norm)

    def _images_of(self, teacher: Teacher, images: Tensor,
                   grid: Sequence[int]) -> Tensor:
        """Images of the student's values and size in those of a teacher."""
        if self._to_rgb is None:
            raise ValueError(
                f'expected a {type(self).__name__} that belongs to an '
                'algorithm, whose data preprocessor says how images are '
                'normalised; call attach(algorithm) first')
        matrix, offset = (x.to(images) for x in self._to_rgb)
        rgb = torch.einsum('oc,bchw->bohw', matrix, images - offset)
        mean, std = (
            torch.tensor(values).to(images).view(3, 1, 1)
            for values in (teacher.mean, teacher.std))
        per_unit = max(1, round(self.unit_size / teacher.stride))
        side = per_unit * teacher.stride
        if side != self.unit_size:
            rgb = F.interpolate(
                rgb, [side * n for n in grid],
                mode='bicubic',
                antialias=True,
                align_corners=False)
        return (rgb - mean) / std


def unit_features(outs: Any, grid: Grid, dtype: torch.dtype,
                  norm: bool) -> Tensor:
    """Average a network's last feature map in each unit.

    Args:
        outs (Tensor | Sequence[Tensor]): What the network returned.
        grid (tuple[int, int]): Rows and columns of the units.
        dtype (torch.dtype): Type of the result.
        norm (bool): Give each unit mean 0 and variance 1 over its channels.

    Returns:
        Tensor: Shape (B, L, C).

    Raises:
        ValueError: If the network returned no map that fits the units.
    """
    feature = outs[-1] if isinstance(outs, (tuple, list)) else outs
    if not isinstance(feature, Tensor) or feature.ndim != 4:
        shape = getattr(feature, 'shape', type(feature).__name__)
        raise ValueError(
            'expected a teacher that returns feature maps (B, C, h, w), '
            f"got {shape}; a VisionTransformer needs out_type='featmap'")
    target = units_of_map(feature.to(dtype), grid).mean(2)
    if norm:
        target = F.layer_norm(target, target.shape[-1:])
    return target


def _loads_itself(backbone: dict) -> bool:
    """Whether a config is that of a :class:`Teacher`."""
    kind = MMPRETRAIN_MODELS.get(backbone['type']) if isinstance(
        backbone['type'], str) else backbone['type']
    return isinstance(kind, type) and issubclass(kind, Teacher)


def _undo(preprocessor: nn.Module) -> Tuple[Tensor, Tensor]:
    """The inverse of a data preprocessor, whatever its settings are.

    Its answers to a black image and to images of one channel each give the
    matrix (3, 3) and the offset (3, 1, 1) of ``rgb = matrix (x - offset)``.
    """
    # Images are loaded in the order blue, green, red.
    probes = torch.zeros(4, 3, 1, 1)
    probes[1:, :, 0, 0] = 255 * torch.eye(3)
    out = preprocessor(dict(inputs=probes, data_samples=None))['inputs']
    answers = (out if isinstance(out, Tensor) else out[0]).double().cpu()
    scaled = (answers[1:] - answers[:1])[:, :, 0, 0].T / 255
    matrix = torch.linalg.inv(scaled).flip(0)  # red first
    return matrix, answers[0]
