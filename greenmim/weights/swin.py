# Copyright (c) greenmim authors. All rights reserved.
"""Swin Transformer: its layouts, and its settings read off the tensors."""
import re
from typing import Any, Dict, List, Optional, Sequence, Tuple

from torch import nn

from greenmim.models import GreenMIMSwinTransformer
from greenmim.models.backbones.swin import bias_table_window, resize_bias_table
from .layouts import Family, Layout, Tensors, outputs_of_stages

_MICROSOFT_BLOCKS = (
    ('patch_embed.proj.', 'patch_embed.projection.'),
    ('patch_embed.norm.', 'patch_embed.norm.'),
    ('layers.{i}.blocks.{j}.attn.', 'stages.{i}.blocks.{j}.attn.w_msa.'),
    ('layers.{i}.blocks.{j}.mlp.fc1.',
     'stages.{i}.blocks.{j}.ffn.layers.0.0.'),
    ('layers.{i}.blocks.{j}.mlp.fc2.', 'stages.{i}.blocks.{j}.ffn.layers.1.'),
    ('layers.{i}.blocks.{j}.norm', 'stages.{i}.blocks.{j}.norm'),
    ('norm.', 'norm{last}.'),
)
_MICROSOFT = _MICROSOFT_BLOCKS + (
    ('layers.{i}.downsample.', 'stages.{i}.downsample.'),
    ('absolute_pos_embed', 'absolute_pos_embed'),
)
# timm merges at the beginning of a stage, not at the end of the one before.
_TIMM = _MICROSOFT_BLOCKS + (
    ('layers.{i+1}.downsample.', 'stages.{i}.downsample.'), )

LAYOUTS = {
    'openmmlab': Layout(),
    'mmdet': Layout(),
    'swin': Layout(_MICROSOFT, 'microsoft', norm_eps=1e-5),
    'simmim': Layout(_MICROSOFT, 'microsoft', norm_eps=1e-5),
    'fastmim': Layout(_MICROSOFT, 'microsoft', norm_eps=1e-5),
    'greenmim': Layout(_MICROSOFT, 'microsoft', norm_eps=1e-6),
    'greenmim-2022': Layout(_MICROSOFT, 'greenmim-2022', norm_eps=1e-6),
    'timm': Layout(
        _TIMM, 'microsoft', without=('relative_position_index', )),
}  # yapf: disable

TABLE = 'attn.w_msa.relative_position_bias_table'


def infer_settings(tensors: Tensors,
                   norm_eps: Optional[float] = None) -> Dict[str, Any]:
    """Arguments of ``mmpretrain.SwinTransformer`` that tensors fit.

    In a stage whose window was shrunk to its map the table may be that of the
    shrunk window, so windows are named stage by stage.

    Args:
        tensors (dict[str, Tensor]): In our names, without a prefix.
        norm_eps (float, optional): Eps of all LayerNorms, which leaves no
            trace in the tensors. Defaults to None, not known.

    Returns:
        dict: Plain numbers, lists and dicts.

    Raises:
        ValueError: If a tensor that tells a setting is missing.
    """
    matches = (re.match(r'stages\.(\d+)\.blocks\.(\d+)\.', k) for k in tensors)
    blocks = {(int(match[1]), int(match[2])) for match in matches if match}
    depths, num_heads, windows = [], [], []
    for stage in range(1 + max((stage for stage, _ in blocks), default=0)):
        depths.append(1 +
                      max((block
                           for of_stage, block in blocks if of_stage == stage),
                          default=0))
        names = (f'stages.{stage}.blocks.{block}.{TABLE}'
                 for block in range(depths[-1]))
        name = next((name for name in names if name in tensors), None)
        if name is None or tensors[name].ndim != 2:
            raise ValueError(
                f'expected a tensor stages.{stage}.blocks.0.{TABLE} of two '
                'dimensions, found none')
        num_heads.append(tensors[name].shape[1])
        windows.append((round(tensors[name].shape[0]**0.5) + 1) // 2)
    patches = tensors.get('patch_embed.projection.weight')
    if patches is None or patches.ndim != 4:
        raise ValueError('expected a tensor patch_embed.projection.weight of '
                         'four dimensions, found none')
    embed_dims, in_channels, patch_size, _ = patches.shape
    last = len(depths) - 1
    settings: Dict[str, Any] = dict(
        arch=dict(embed_dims=embed_dims, depths=depths, num_heads=num_heads),
        in_channels=in_channels,
        patch_size=patch_size,
        out_indices=[
            i for i in range(last + 1)
            if i == last or f'norm{i}.weight' in tensors
        ],
        stage_cfgs=[dict(block_cfgs=dict(window_size=w)) for w in windows])
    if norm_eps is not None:
        norm = dict(norm_cfg=dict(type='LN', eps=norm_eps))
        settings.update(norm, patch_cfg=norm)
        for cfg in settings['stage_cfgs']:
            cfg['block_cfgs'].update(norm)
            cfg['downsample_cfg'] = norm
    if 'absolute_pos_embed' in tensors:
        side = round(tensors['absolute_pos_embed'].shape[1]**0.5)
        settings.update(use_abs_pos_embed=True, img_size=side * patch_size)
    return settings


def declared_settings(cfg: Dict[str, Any]) -> Dict[str, Any]:
    """The same arguments as far as a backbone's config names them.

    Nothing but numbers and known names leaves the config, since it may come
    out of a file that nobody has looked at.

    Raises:
        ValueError: If a value is not what the argument takes.
    """
    arch = cfg.get('arch', 'tiny')
    if isinstance(arch, str):
        arch = GreenMIMSwinTransformer.arch_zoo.get(arch.lower())
    if not isinstance(arch, dict) or not all(
            key in arch for key in ('embed_dims', 'depths', 'num_heads')):
        raise ValueError(f'expected an arch of Swin, got {cfg.get("arch")!r}')
    depths = [int(depth) for depth in arch['depths']]
    windows = cfg.get('window_size', 7)
    windows = [windows] * len(depths) if isinstance(windows, int) else windows
    stage_cfgs = cfg.get('stage_cfgs', {})
    if isinstance(stage_cfgs, dict):
        stage_cfgs = [stage_cfgs] * len(depths)
    return dict(
        arch=dict(
            embed_dims=int(arch['embed_dims']),
            depths=depths,
            num_heads=[int(heads) for heads in arch['num_heads']]),
        in_channels=int(cfg.get('in_channels', 3)),
        patch_size=int(cfg.get('patch_size', 4)),
        out_indices=[int(i) for i in cfg.get('out_indices', (3, ))],
        use_abs_pos_embed=bool(cfg.get('use_abs_pos_embed', False)),
        img_size=image_size(cfg.get('img_size', 224)),
        stage_cfgs=[
            _declared_stage(*of_stage)
            for of_stage in zip(stage_cfgs, windows)
        ],
        patch_cfg=_declared_norm(cfg.get('patch_cfg', {})),
        **_declared_norm(cfg))


def _declared_stage(cfg: Dict[str, Any], window: int) -> Dict[str, Any]:
    # A list is a config for each block; their windows and norms agree.
    block = cfg.get('block_cfgs', {})
    block = block[0] if isinstance(block, (list, tuple)) else block
    window = block.get('window_size', cfg.get('window_size', window))
    return dict(
        block_cfgs=dict(window_size=int(window), **_declared_norm(block)),
        downsample_cfg=_declared_norm(cfg.get('downsample_cfg', {})))


def _declared_norm(cfg: Dict[str, Any]) -> Dict[str, Any]:
    """The eps of a LayerNorm; 1e-5 is PyTorch's."""
    eps = float(cfg.get('norm_cfg', {}).get('eps', 1e-5))
    return dict(norm_cfg=dict(type='LN', eps=eps))


def image_size(value: Any) -> Any:
    """An image size as one number or a list of two."""
    return int(value) if isinstance(value, int) else [int(v) for v in value]


def windows_of(settings: Dict[str, Any]) -> List[int]:
    """The window of each stage."""
    return [cfg['block_cfgs']['window_size'] for cfg in settings['stage_cfgs']]


def resize_windows(tensors: Tensors,
                   windows: Sequence[int]) -> Tuple[Tensors, Tuple[str, ...]]:
    """Give each stage another window.

    Returns:
        tuple[dict[str, Tensor], tuple[str]]: All tensors but the index
        buffers of another window, and the names of the resized tables.
    """
    kept, resized = {}, []
    for name, tensor in tensors.items():
        match = re.match(r'stages\.(\d+)\..*\.relative_position_(\w+)$', name)
        if match is None:
            kept[name] = tensor
            continue
        window = windows[int(match[1])]
        if match[2] == 'index':
            if len(tensor) == window**2:
                kept[name] = tensor
        elif bias_table_window(tensor) == window:
            kept[name] = tensor
        else:
            kept[name] = resize_bias_table(tensor, window)
            resized.append(name)
    return kept, tuple(resized)


def adapt(settings: Dict[str, Any], windows: Sequence[int],
          maps: bool) -> Dict[str, Any]:
    """Other windows, and an output of every stage where maps are read."""
    stage_cfgs = [dict(block_cfgs=dict(window_size=w)) for w in windows]
    settings = {**settings, 'stage_cfgs': stage_cfgs}
    return outputs_of_stages(settings, windows, maps)


def build(settings: Dict[str, Any]) -> nn.Module:
    return GreenMIMSwinTransformer(**settings)


SWIN = Family(
    name='swin',
    types=('mmpretrain.SwinTransformer', 'greenmim.GreenMIMSwinTransformer'),
    pattern=r'attn\.w_msa\.relative_position_bias_table$',
    merged=r'^stages\.\d+\.downsample\.(norm|reduction)\.',
    passing=r'(^|\.)(mask_token|attn_mask)$',
    layouts=LAYOUTS,
    infer_settings=infer_settings,
    declared_settings=declared_settings,
    build=build,
    windows_of=windows_of,
    resize_windows=resize_windows,
    adapt=adapt,
    one_window=True)
