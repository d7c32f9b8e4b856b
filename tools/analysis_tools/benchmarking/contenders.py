# Copyright (c) greenmim authors. All rights reserved.
"""The models that are compared, each with its mask and its loss."""
import copy
from dataclasses import dataclass
from typing import Any, Callable, List, Sequence, Tuple

import torch
from mmengine.config import ConfigDict
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from greenmim.models import GreenMIM, GreenMIMSwinTransformer
from greenmim.ops import MaskPlanner, VisibleLayout, random_mask, unit_grid


def no_mask() -> None:
    """Draw nothing."""


@dataclass(frozen=True, eq=False)
class Contender:
    """A model that takes part in the comparison.

    Args:
        name (str): Its name in the tables.
        model (nn.Module): What is trained.
        loss (Callable): Maps images and a mask to the loss.
        draw (Callable): Draws the mask on the CPU, and plans it, as the data
            loading does in training. Defaults to :func:`no_mask`.
        is_part (bool): A part of a step, timed for the limit by token count
            and not shown. Defaults to False.
    """
    name: str
    model: nn.Module
    loss: Callable[[Tensor, Any], Tensor]
    draw: Callable[[], Any] = no_mask
    is_part: bool = False


def green_contenders(model: GreenMIM, images: Tensor,
                     scopes: Sequence[str]) -> List[Contender]:
    """GreenMIM with each of the mask scopes, and its decoder alone."""
    size = images.shape[-2:]
    planner = model.mask_planner

    def loss(images: Tensor, plan: Any) -> Tensor:
        pred = model.neck(model.backbone(images, plan), plan.layout)
        return model.head.loss(pred, images, plan.layout)

    def draw_with(planner: MaskPlanner) -> Callable[[], Any]:
        return lambda: planner(len(images), size)

    contenders = [
        Contender(
            f'greenmim, mask per {scope}', model, loss,
            draw_with(
                MaskPlanner(planner.group_planner, planner.unit_size,
                            planner.mask_ratio, scope))) for scope in scopes
    ]

    grid = unit_grid(size, planner.unit_size)
    layout = VisibleLayout.from_mask(random_mask(1, grid, planner.mask_ratio))
    latent = torch.randn(
        len(images),
        layout.num_visible,
        model.neck.in_channels,
        device=images.device,
        requires_grad=True)

    def decoder_loss(images: Tensor, mask: None) -> Tensor:
        return model.head.loss(model.neck(latent, layout), images, layout)

    return contenders + [
        Contender('decoder', model, decoder_loss, is_part=True)
    ]


def dense_contenders(simmim: nn.Module, images: Tensor, planner: MaskPlanner,
                     against: Sequence[str]) -> List[Contender]:
    """MMPretrain's SimMIM, and its backbone alone on all tokens."""
    grid = unit_grid(images.shape[-2:], planner.unit_size)
    patch_size = simmim.head.patch_size
    side = planner.unit_size // patch_size  # SimMIM's masks are per patch

    def draw() -> Tensor:
        mask = random_mask(len(images), grid, planner.mask_ratio)
        mask = mask.repeat_interleave(side, 1).repeat_interleave(side, 2)
        return mask.float()

    def loss(images: Tensor, mask: Tensor) -> Tensor:
        mask = mask.to(images.device, non_blocking=True)
        pred = simmim.neck(simmim.backbone(images, mask)[0])
        return simmim.head.loss(pred, images, mask)

    def backbone_loss(images: Tensor, mask: None) -> Tensor:
        return simmim.backbone(images, None)[-1].float().square().mean()

    contenders = [
        Contender(
            'dense backbone',
            simmim.backbone,
            backbone_loss,
            is_part='dense' not in against)
    ]
    if 'simmim' in against:
        contenders.append(Contender('simmim', simmim, loss, draw))
    return contenders


def build_simmim(cfg: ConfigDict, green: GreenMIMSwinTransformer,
                 image_size: Tuple[int, int]) -> nn.Module:
    """MMPretrain's SimMIM on the architecture of a GreenMIM config.

    Args:
        cfg (ConfigDict): The config of the GreenMIM model.
        green (GreenMIMSwinTransformer): The backbone built from it.
        image_size (tuple[int, int]): Height and width in pixels.
    """
    backbone = copy.deepcopy(cfg.backbone)
    for name in ('window_size', 'attn_backend', 'compile_blocks'):
        backbone.pop(name, None)
    stages = backbone.get('stage_cfgs', {})
    if isinstance(stages, dict):
        stages = [stages] * green.num_layers
    # SimMIM's backbone takes windows from its stages alone, and refuses those
    # that exceed the map, which the green one shrinks.
    backbone.stage_cfgs = [
        dict(stage, window_size=window)
        for stage, window in zip(stages, _fitting_windows(green, image_size))
    ]
    backbone.type = 'mmpretrain.SimMIMSwinTransformer'
    in_channels = backbone.get('in_channels', 3)
    simmim = MODELS.build(
        dict(
            type='mmpretrain.SimMIM',
            backbone=backbone,
            neck=dict(
                type='mmpretrain.SimMIMLinearDecoder',
                in_channels=green.num_features[-1],
                encoder_stride=green.unit_size),
            head=dict(
                type='mmpretrain.SimMIMHead',
                patch_size=green.patch_size,
                loss=dict(
                    type='PixelReconstructionLoss',
                    criterion='L1',
                    channel=in_channels))))
    # The decoder predicts three channels, whatever the backbone reads.
    simmim.neck.decoder[0] = nn.Conv2d(green.num_features[-1],
                                       green.unit_size**2 * in_channels, 1)
    return simmim


def _fitting_windows(green: GreenMIMSwinTransformer,
                     image_size: Tuple[int, int]) -> List[int]:
    """The window of every stage, at most the map unless the map is padded."""
    windows = []
    for i, stage in enumerate(green.stages):
        attn = stage.blocks[0].attn
        side = min(image_size) // (green.patch_size * 2**i)
        windows.append(
            attn.window_size if attn.
            pad_small_map else min(attn.window_size, side))
    return windows
