# Copyright (c) greenmim authors. All rights reserved.
"""The models that are compared, each with its mask and its loss.

Ranges of PyTorch's profiler name what :mod:`.breakdown` counts as a whole.
"""
import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from mmengine.config import ConfigDict
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.profiler import record_function

from greenmim._mmengine import set_active_positions
from greenmim.models import GreenMIM, GreenMIMConvNeXt, GreenMIMSwinTransformer
from greenmim.models.masking import MaskPlanner, random_mask
from greenmim.ops import GroupPlanner, unit_grid
from greenmim.ops.planning import CPU_COST, GPU_COST

# The words of a variant of GreenMIM, and what they set: of its backbone, and
# of the planner of its groups, the cost and whether they are fixed.
SETTINGS: Dict[str, Dict[str, Any]] = {
    'eager': dict(attn_backend='eager'),
    'sdpa': dict(attn_backend='sdpa'),
    'fused': dict(attn_backend='fused'),
    'compiled': dict(compile_blocks=True),
}
GROUPS = {
    'cpu-groups': (CPU_COST, False),
    'variable-groups': (GPU_COST, False),
    'fixed-groups': (GPU_COST, True),
}

REGION = 'greenmim: '  # how the names of ranges begin


@dataclass(frozen=True, eq=False)
class Contender:
    """A model that takes part in the comparison."""
    name: str  # in the tables
    model: nn.Module
    loss: Callable[[Tensor, Any], Tensor]  # of images and a mask
    # Draws the mask on the CPU, and plans it, as the data loading does.
    draw: Callable[[], Any] = lambda: None
    # Timed for the limit by token count, and not shown.
    is_part: bool = False


def decode(model: Any, images: Tensor, mask: Any,
           decoder: Callable[[Any], Tensor], encoded: Any) -> Tensor:
    """The loss of an encoded batch, by the head of the model."""
    with record_function(f'{REGION}decoder'):
        pred = decoder(encoded)
    with record_function(f'{REGION}loss'):
        return model.head.loss(pred, images, mask)


def green_loss(model: GreenMIM, images: Tensor, plan: Any) -> Tensor:
    return decode(model, images, plan.layout, model.decode,
                  model.encode(images, plan))


def green_contenders(model: GreenMIM, images: Tensor,
                     scopes: Sequence[str]) -> List[Contender]:
    """GreenMIM with each of the mask scopes, and its decoder alone."""
    size = images.shape[-2:]
    planner = model.mask_planner
    contenders = []
    for scope in scopes:
        scoped = MaskPlanner(planner.group_planner, planner.unit_size,
                             planner.mask_ratio, scope)
        contenders.append(
            Contender(f'greenmim, mask per {scope}', model,
                      partial(green_loss, model),
                      partial(scoped, len(images), size)))

    mask = random_mask(1, unit_grid(size, planner.unit_size),
                       planner.mask_ratio)
    plan = planner(len(images), size, mask)
    with torch.no_grad():
        encoded = model.encode(images, plan)
    encoded = replace(
        encoded, stages=[x.requires_grad_() for x in encoded.stages])

    def decoder_loss(images: Tensor, mask: None) -> Tensor:
        return decode(model, images, plan.layout, model.decode, encoded)

    contenders.append(Contender('decoder', model, decoder_loss, is_part=True))
    return contenders


def variant_contenders(cfg: ConfigDict, images: Tensor,
                       variants: Sequence[str]) -> List[Contender]:
    """GreenMIM with other settings.

    A variant is words of ``SETTINGS`` and ``GROUPS``, joined by plus signs.
    """
    contenders = []
    for variant in variants:
        varied = copy.deepcopy(cfg)
        words = variant.split('+')
        for word in words:
            varied.backbone.update(SETTINGS.get(word, {}))
        model = MODELS.build(varied).to(images.device)
        planner = model.mask_planner
        stages = planner.group_planner.stages
        for word in filter(GROUPS.__contains__, words):
            planner = MaskPlanner(
                GroupPlanner(stages, *GROUPS[word]), planner.unit_size,
                planner.mask_ratio, planner.mask_scope)
        contenders.append(
            Contender(f'greenmim, {variant}', model,
                      partial(green_loss, model),
                      partial(planner, len(images), images.shape[-2:])))
    return contenders


def other_contenders(cfg: ConfigDict, model: GreenMIM, images: Tensor,
                     against: Optional[Sequence[str]]) -> List[Contender]:
    """What GreenMIM is compared with, and the dense backbone in any case.

    ``against`` holds names of :func:`against_names`, which are the default.

    Raises:
        ValueError: If a name has no meaning for the backbone.
    """
    names = against_names(model.backbone)
    if against is None:
        against = names
    if not set(against) <= set(names):
        raise ValueError(
            f'expected {type(model.backbone).__name__} against any of '
            f'{", ".join(names)}, got {", ".join(against)}; leave out what '
            'there is not for this backbone')
    if not against:
        return []
    simmim: Any = None
    if 'simmim' in names:
        # Its backbone is the dense one, with windows that the map allows.
        simmim = build_simmim(cfg, model.backbone,
                              (images.shape[-2], images.shape[-1]))
    dense: nn.Module = simmim.backbone if simmim else MODELS.build(
        cfg.backbone)
    dense.to(images.device)

    def dense_loss(images: Tensor, mask: None) -> Tensor:
        outs = dense(images, None)
        return outs[-1].float().square().mean()

    contenders = [
        Contender(
            'dense backbone',
            dense,
            dense_loss,
            is_part='dense' not in against)
    ]
    if 'simmim' in against:
        contenders.append(
            simmim_contender(
                simmim.to(images.device), images, model.mask_planner))
    if 'spark' in against:
        contenders.append(
            spark_contender(cfg.backbone, images, model.mask_planner))
    return contenders


def against_names(green: nn.Module) -> Tuple[str, ...]:
    if isinstance(green, GreenMIMSwinTransformer):
        return 'simmim', 'dense'
    if isinstance(green, GreenMIMConvNeXt):
        return 'spark', 'dense'
    return ('dense', )


def simmim_contender(simmim: Any, images: Tensor,
                     planner: MaskPlanner) -> Contender:
    grid = unit_grid(images.shape[-2:], planner.unit_size)
    patch_size = simmim.head.patch_size
    side = planner.unit_size // patch_size  # SimMIM's masks are per patch

    def draw() -> Tensor:
        mask = random_mask(len(images), grid, planner.mask_ratio)
        mask = mask.repeat_interleave(side, 1).repeat_interleave(side, 2)
        return mask.float()

    def loss(images: Tensor, mask: Tensor) -> Tensor:
        mask = mask.to(images.device, non_blocking=True)
        latent = simmim.backbone(images, mask)[0]
        return decode(simmim, images, mask, simmim.neck, latent)

    return Contender('simmim', simmim, loss, draw)


def spark_contender(backbone: ConfigDict, images: Tensor,
                    planner: MaskPlanner) -> Contender:
    """The encoder of MMPretrain's SparK, without its decoder and loss.

    It convolves densely and masks again after every convolution.
    """
    grid = unit_grid(images.shape[-2:], planner.unit_size)
    if grid[0] != grid[1]:
        raise ValueError(
            'expected square images, which SparK needs, got '
            f'{(images.shape[-2], images.shape[-1])}; leave spark out of '
            '--against')
    backbone = copy.deepcopy(backbone)
    backbone.type = 'mmpretrain.SparseConvNeXt'
    encoder = MODELS.build(dict(backbone, gap_before_output=False))
    encoder.to(images.device)

    def draw() -> Tensor:
        return ~random_mask(len(images), grid, planner.mask_ratio)[:, None]

    def loss(images: Tensor, active: Tensor) -> Tensor:
        set_active_positions(active.to(images.device, non_blocking=True))
        return encoder(images)[-1].float().square().mean()

    return Contender('spark encoder', encoder, loss, draw)


def build_simmim(cfg: ConfigDict, green: GreenMIMSwinTransformer,
                 image_size: Tuple[int, int]) -> nn.Module:
    """MMPretrain's SimMIM on the architecture of a GreenMIM config.

    ``green`` is the backbone built from it.
    """
    backbone = copy.deepcopy(cfg.backbone)
    for name in ('window_size', 'attn_backend', 'compile_blocks'):
        backbone.pop(name, None)
    stages = backbone.get('stage_cfgs', {})
    if isinstance(stages, dict):
        stages = [stages] * green.num_layers
    # SimMIM's backbone takes windows from its stages alone, and refuses those
    # that exceed the map, which the green one shrinks.
    backbone.stage_cfgs = []
    for i, stage in enumerate(stages):
        attn = green.stages[i].blocks[0].attn
        window = attn.window_size
        if not attn.pad_small_map:
            window = min(window, min(image_size) // (green.patch_size * 2**i))
        backbone.stage_cfgs.append(dict(stage, window_size=window))
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
