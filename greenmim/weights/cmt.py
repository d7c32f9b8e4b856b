# Copyright (c) greenmim authors. All rights reserved.
"""CMT: layouts and settings."""
from typing import Any, Dict, List, Optional, Tuple

from greenmim import models
from .family import Family, norm_config, shape_of
from .layouts import Layout, Renames, Tensors
from .pvt_v2 import infer_pyramid


def _authors() -> Renames:
    """The authors number stages by letters, and have no list in the stem."""
    renames: List[Tuple[str, str]] = [('norm.', 'norm3.')]
    for i in range(3):
        renames += [(f'stem_conv{i + 1}.', f'stem.{3 * i}.'),
                    (f'stem_norm{i + 1}.', f'stem.{3 * i + 2}.')]
    for i, letter in enumerate('abcd'):
        renames += [
            (f'patch_embed_{letter}.proj.', f'patch_embeds.{i}.projection.'),
            (f'patch_embed_{letter}.norm.', f'patch_embeds.{i}.norm.'),
            (f'relative_pos_{letter}', f'position_biases.{i}.bias'),
            (f'blocks_{letter}.' + '{j}.', f'stages.{i}.' + '{j}.'),
        ]
    return tuple(renames)


class CMT(Family):
    """CMT, which timm and MMDetection do not have."""
    name = 'cmt'
    types = ('greenmim.GreenMIMCMT', )
    cls = models.CMT
    layouts = {
        'openmmlab': Layout(),
        'mmdet': Layout(),
        'fastmim': Layout(_authors()),
    }
    pattern = r'^position_biases\.\d+\.bias$'

    def infer_settings(self,
                       tensors: Tensors,
                       norm_eps: Optional[float] = None,
                       **hints: Any) -> Dict[str, Any]:
        """Without ``norm_eps``, the authors' values are used."""
        arch = infer_pyramid(tensors, 'mlp.conv1.0.weight', 4,
                             'attn.sr.0.weight')
        stages = range(len(arch['depths']))
        biases = [
            shape_of(tensors, f'position_biases.{i}.bias', 3) for i in stages
        ]
        stem = shape_of(tensors, 'stem.0.weight', 4)
        return dict(
            arch=dict(
                arch,
                num_heads=[shape[0] for shape in biases],
                stem_channels=stem[0]),
            img_size=4 * round(biases[0][1]**0.5),
            in_channels=stem[1],
            out_indices=[i for i in stages if f'norm{i}.weight' in tensors],
            qkv_bias='stages.0.0.attn.q.bias' in tensors,
            norm_cfg=norm_config(norm_eps or 1e-6),
            patch_norm_cfg=norm_config(norm_eps or 1e-5))
