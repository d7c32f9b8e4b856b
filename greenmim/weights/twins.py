# Copyright (c) greenmim authors. All rights reserved.
"""Twins, PCPVT and SVT: layouts and settings."""
from typing import Any, Dict, Iterable, Optional, Sequence, Tuple, Union

from greenmim.models import GreenMIMPCPVT, GreenMIMSVT
from .family import Family, norm_config, shape_of
from .layouts import Layout, Renames, Tensors
from .pvt_v2 import infer_pyramid
from .swin_v2 import for_stages

# The authors and timm have the same names, and a norm after the last stage.
_TIMM: Renames = (
    ('patch_embeds.{i}.proj.', 'patch_embeds.{i}.projection.'),
    ('patch_embeds.{i}.norm.', 'patch_embeds.{i}.norm.'),
    ('blocks.{i}.{j}.mlp.fc1.', 'stages.{i}.{j}.ffn.layers.0.0.'),
    ('blocks.{i}.{j}.mlp.fc2.', 'stages.{i}.{j}.ffn.layers.1.'),
    ('blocks.{i}.{j}.', 'stages.{i}.{j}.'),
    ('pos_block.{i}.proj.0.', 'position_encodings.{i}.proj.'),
    ('norm.', 'norm_after_stage3.'),
)


class PCPVT(Family):
    """Twins-PCPVT, whose attention is global throughout."""
    name = 'twins_pcpvt'
    # MMPretrain's class does not take the eps of the patch embeddings' norms.
    types: Tuple[str, ...] = ('greenmim.GreenMIMPCPVT', )
    cls = GreenMIMPCPVT
    layouts = {
        'openmmlab': Layout(),
        'mmdet': Layout(),
        'timm': Layout(_TIMM),
        'twins': Layout(_TIMM),
    }
    pattern = r'^position_encodings\.\d+\.'
    hints: Tuple[str, ...] = ('num_heads', )
    # Channels of an attention head.
    head_dims = 64
    # The first block of a stage that reduces keys and values.
    reducing = 0

    def recognises(self, names: Iterable[str]) -> bool:
        names = list(names)
        return super().recognises(names) and not SVT().recognises(names)

    def infer_settings(self,
                       tensors: Tensors,
                       norm_eps: Optional[float] = None,
                       num_heads: Union[int, Sequence[int]] = (),
                       **hints: Any) -> Dict[str, Any]:
        """Without a hint, heads have the width that the paper's models have.
        """
        arch = infer_pyramid(tensors, 'ffn.layers.0.0.weight', 2,
                             'attn.sr.weight', self.reducing)
        widths, stages = arch['embed_dims'], range(len(arch['depths']))
        embeds = [
            shape_of(tensors, f'patch_embeds.{i}.projection.weight', 4)
            for i in stages
        ]
        heads = for_stages(num_heads, len(widths)) or [
            max(1, dims // self.head_dims) for dims in widths
        ]
        if any(dims % number for dims, number in zip(widths, heads)):
            raise ValueError(f'expected heads that divide the channels '
                             f'{widths}, got {heads}; pass --num-heads')
        sides = [shape[2] for shape in embeds]
        norm = {}
        if norm_eps:
            norm = dict(
                norm_cfg=norm_config(norm_eps),
                patch_norm_cfg=norm_config(norm_eps))
        return dict(
            norm,
            arch=dict(arch, num_heads=heads, patch_sizes=sides, strides=sides),
            in_channels=embeds[0][1],
            qkv_bias=any(f'stages.0.0.attn.{name}.bias' in tensors
                         for name in ('q', 'qkv')),
            norm_after_stage=[
                f'norm_after_stage{i}.weight' in tensors for i in stages
            ],
            out_indices=[stages[-1]])

    def hints_from(self, model: Any) -> Dict[str, Any]:
        return dict(num_heads=list(model.num_heads))

    def timm_model(self, settings: Dict[str, Any], img_size: Any,
                   windows: Sequence[int]) -> Tuple[str, Dict[str, Any]]:
        arch = settings['arch']
        if not settings['norm_after_stage'][-1]:
            raise ValueError('expected a norm after the last stage, which '
                             "timm's Twins has, got a backbone without it; "
                             'export it with --to mmpretrain')
        return 'twins.Twins', dict(
            img_size=img_size,
            patch_size=arch['patch_sizes'][0],
            in_chans=settings['in_channels'],
            embed_dims=arch['embed_dims'],
            num_heads=arch['num_heads'],
            mlp_ratios=arch['mlp_ratios'],
            depths=arch['depths'],
            sr_ratios=arch['sr_ratios'],
            wss=arch.get('window_sizes'))


class SVT(PCPVT):
    """Twins-SVT, every second block of which attends in windows."""
    name = 'twins_svt'
    types = ('greenmim.GreenMIMSVT', )
    cls = GreenMIMSVT
    pattern = r'^stages\.\d+\.\d+\.attn\.qkv\.'
    hints = ('num_heads', 'window_size')
    head_dims = 32
    reducing = 1

    def recognises(self, names: Iterable[str]) -> bool:
        return Family.recognises(self, names)

    def infer_settings(self,
                       tensors: Tensors,
                       norm_eps: Optional[float] = None,
                       num_heads: Union[int, Sequence[int]] = (),
                       window_size: Union[int, Sequence[int]] = 7,
                       **hints: Any) -> Dict[str, Any]:
        """Windows do not show in the tensors either."""
        settings = super().infer_settings(tensors, norm_eps, num_heads)
        windows = for_stages(window_size, len(settings['arch']['depths']))
        settings['arch']['window_sizes'] = windows
        return settings

    def hints_from(self, model: Any) -> Dict[str, Any]:
        return dict(
            super().hints_from(model), window_size=list(model.window_sizes))

    def hints_of(self, settings: Dict[str, Any]) -> Dict[str, Any]:
        arch = settings['arch']
        return dict(
            num_heads=arch['num_heads'], window_size=arch['window_sizes'])
