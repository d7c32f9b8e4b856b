# Copyright (c) greenmim authors. All rights reserved.
"""Narrow random backbones of all families, and checkpoints of them."""
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import torch
from mmengine.config import Config
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from greenmim.models import GreenMIMSwinTransformer
from greenmim.registry import MODELS
from greenmim.weights import (TARGETS, Backbone, Source,
                              convert_decoder_or_head, read_source,
                              tensors_for)
from tests.backbones.cmt import arch as cmt_arch
from tests.conftest import CHECKOUT

NORM = dict(type='LN', eps=1e-6)
SWIN = dict(
    arch=dict(embed_dims=8, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 4]),
    img_size=224,
    window_size=7,
    norm_cfg=NORM,
    patch_cfg=dict(norm_cfg=NORM),
    stage_cfgs=dict(
        block_cfgs=dict(norm_cfg=NORM), downsample_cfg=dict(norm_cfg=NORM)))
TWINS: Dict[str, Any] = dict(
    arch=dict(
        embed_dims=[8, 16, 24, 32],
        depths=[2, 2, 2, 2],
        num_heads=[1, 2, 3, 4],
        patch_sizes=[4, 2, 2, 2],
        strides=[4, 2, 2, 2],
        mlp_ratios=[4, 4, 2, 2],
        sr_ratios=[8, 4, 2, 1]),
    qkv_bias=True,
    norm_after_stage=[False, False, False, True],
    norm_cfg=NORM,
    patch_norm_cfg=NORM)
VIT_ARCH = dict(
    embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48)
# The config of a backbone of each family.
BACKBONES = {
    'swin':
    dict(type='greenmim.GreenMIMSwinTransformer', **SWIN),
    'swin_v2':
    dict(
        type='greenmim.GreenMIMSwinTransformerV2',
        arch=dict(
            embed_dims=8,
            depths=[2, 1, 1, 1],
            num_heads=[1, 2, 4, 4],
            extra_norm_every_n_blocks=0),
        img_size=64,
        window_size=[4, 4, 4, 2]),
    'vit':
    dict(
        type='greenmim.GreenMIMVisionTransformer',
        arch=VIT_ARCH,
        img_size=32,
        out_type='raw'),
    'beit':
    dict(
        type='mmpretrain.BEiTViT',
        arch=VIT_ARCH,
        img_size=32,
        out_type='featmap',
        final_norm=True,
        use_rel_pos_bias=False,
        use_shared_rel_pos_bias=True),
    'pvt_v2':
    dict(
        type='greenmim.GreenMIMPVTv2',
        arch=dict(
            embed_dims=[8, 16, 40, 64],
            depths=[1, 2, 1, 1],
            num_heads=[1, 2, 5, 8],
            mlp_ratios=[8, 8, 4, 4],
            sr_ratios=[8, 4, 2, 1])),
    'cmt':
    dict(type='greenmim.GreenMIMCMT', arch=cmt_arch(), img_size=64),
    'convnext':
    dict(
        type='greenmim.GreenMIMConvNeXt',
        arch=dict(depths=[1, 2, 1, 1], channels=[4, 8, 16, 32]),
        gap_before_final_norm=False),
    'convnext_v2':
    dict(
        type='greenmim.GreenMIMConvNeXt',
        arch=dict(depths=[1, 2, 1, 1], channels=[4, 8, 16, 32]),
        use_grn=True,
        layer_scale_init_value=0.,
        gap_before_final_norm=False),
    'twins_pcpvt':
    dict(type='greenmim.GreenMIMPCPVT', **TWINS),
    'twins_svt':
    dict(
        type='greenmim.GreenMIMSVT',
        **{
            **TWINS, 'arch': dict(TWINS['arch'], window_sizes=[4, 4, 4, 2])
        }),
    'hivit':
    dict(
        type='greenmim.GreenMIMHiViT',
        arch=dict(embed_dims=32, depths=[1, 1, 7], num_heads=4),
        img_size=64,
        norm_cfg=NORM),
}
# The family of a backbone, where its name is another.
FAMILY_OF = dict(convnext_v2='convnext')


def make_swin(**changes: Any) -> GreenMIMSwinTransformer:
    """In evaluation mode, with every parameter random."""
    return make_backbone('swin', **changes)


def make_backbone(family: str, **changes: Any) -> nn.Module:
    """In evaluation mode, with every parameter random."""
    torch.manual_seed(0)
    return randomise(MODELS.build({**BACKBONES[family], **changes}))


def randomise(model: nn.Module) -> nn.Module:
    for name, param in model.named_parameters():
        mean = 1. if 'norm' in name and name.endswith('weight') else 0.
        nn.init.normal_(param, mean, std=0.2)
    model.eval()
    return model


def recorded(family: str = 'swin', **changes: Any) -> Dict[str, str]:
    """The ``meta`` of a checkpoint of MMEngine, with the config."""
    backbone = {**BACKBONES[family], **changes}
    config = Config(dict(lr=1., model=dict(backbone=backbone)))
    return dict(cfg=config.pretty_text)


def save_training(path: Path,
                  backbone: nn.Module,
                  changes: Dict[str, Any] = {},
                  **others: Any) -> Path:
    """Save what a run leaves, tensors changed or (None) left out."""
    tensors: Dict[str, Tensor] = {
        f'backbone.{name}': tensor
        for name, tensor in backbone.state_dict().items()
    }
    tensors['neck.mask_token'] = torch.zeros(1, 1, 4)
    tensors.update(changes)
    tensors = {k: v for k, v in tensors.items() if v is not None}
    torch.save({**dict(state_dict=tensors, meta={}), **others}, path)
    return path


def save_model(path: Path, tensors: Dict[str, Optional[Tensor]]) -> Source:
    """Save as other libraries do, but tensors that are None; read it."""
    tensors = {k: v for k, v in tensors.items() if v is not None}
    torch.save(dict(model=tensors), path)
    return read_source(path)


def load_backbone(kind: Any, backbone: Backbone, **changes: Any) -> nn.Module:
    """A model of the settings and tensors, in double precision."""
    model = kind(**{**backbone.settings, **changes}).double()
    model.load_state_dict(backbone.tensors, strict=True)
    model.eval()  # returns nothing in MMPretrain
    return model


def load_whole(model: nn.Module, name: str, source: Source,
               backbone: Backbone) -> nn.Module:
    """Load all of the file of a library, its decoder or classifier too."""
    others, coverages = convert_decoder_or_head(name, source, backbone)
    assert coverages and not any(part.faults for part in coverages)
    tensors = tensors_for(backbone, TARGETS['mmpretrain'])
    model.load_state_dict({**tensors, **others}, strict=True)
    model.double().eval()
    return model


def micro_recipe(name: str, arch: Dict[str, Any], in_channels: int,
                 **changes: Any) -> nn.Module:
    """The model of a pre-training recipe for 64 px, of another arch."""
    path, = (CHECKOUT / 'configs').glob(f'*/{name}')
    cfg = Config(Config.fromfile(path).model)
    cfg.merge_from_dict({
        'backbone.img_size': 64,
        'backbone.drop_path_rate': 0.,
        'neck.in_channels': in_channels,
        **changes
    })
    cfg.backbone.arch = arch
    torch.manual_seed(0)
    return MODELS.build(cfg)


def predict(model: nn.Module, images: Tensor,
            mask: Tensor) -> Tuple[Tensor, Tensor]:
    """The neck's prediction, and the loss, under one mask (Gh, Gw)."""
    samples = []
    for _ in images:
        samples.append(DataSample())
        samples[-1].set_mask(mask)
    found = []
    handle = model.neck.register_forward_hook(
        lambda module, args, out: found.append(out))
    loss = model(images, samples, mode='loss')['loss']
    handle.remove()
    return found[0], loss


def make_classifier(kind: str, backbone: Backbone, in_channels: int,
                    **neck: Any) -> nn.Module:
    """An ``ImageClassifier`` of MMPretrain with 5 classes."""
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type=kind, **backbone.settings),
            head=dict(
                type='mmpretrain.LinearClsHead',
                num_classes=5,
                in_channels=in_channels),
            **neck))


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """Equal in double precision, and not by being zero."""
    assert ours.shape == theirs.shape and theirs.std() > 0.1
    assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()
