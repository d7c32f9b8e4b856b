# Copyright (c) greenmim authors. All rights reserved.
"""Swin Transformer V2: its layouts, and its settings read off the tensors.

A network computes the position biases, so that another window needs no other
weights; only the buffers that list a window's offsets change with it.
"""
import re
from typing import Any, Dict, List, Optional, Sequence, Tuple

from torch import Tensor, nn

from greenmim.models import GreenMIMSwinTransformerV2
from .layouts import Family, Layout, Tensors, outputs_of_stages
from .swin import image_size

_BLOCKS = (
    ('patch_embed.proj.', 'patch_embed.projection.'),
    ('patch_embed.norm.', 'patch_embed.norm.'),
    ('layers.{i}.blocks.{j}.attn.', 'stages.{i}.blocks.{j}.attn.w_msa.'),
    ('layers.{i}.blocks.{j}.mlp.fc1.',
     'stages.{i}.blocks.{j}.ffn.layers.0.0.'),
    ('layers.{i}.blocks.{j}.mlp.fc2.', 'stages.{i}.blocks.{j}.ffn.layers.1.'),
    ('norm.', 'norm{last}.'),
)
# Ours merges at the beginning of a stage, as timm does, Microsoft's at the end
# of the one before.
_MICROSOFT = _BLOCKS + (
    ('layers.{i}.blocks.{j}.norm', 'stages.{i}.blocks.{j}.norm'),
    ('layers.{i}.downsample.', 'stages.{i+1}.downsample.'),
    ('absolute_pos_embed', 'absolute_pos_embed'),
    ('mask_token', 'mask_token'),
)
# The extra norms of the huge model have no place there.
_TIMM = _BLOCKS + (
    ('layers.{i}.blocks.{j}.norm1.', 'stages.{i}.blocks.{j}.norm1.'),
    ('layers.{i}.blocks.{j}.norm2.', 'stages.{i}.blocks.{j}.norm2.'),
    ('layers.{i}.downsample.', 'stages.{i}.downsample.'),
)

LAYOUTS = {
    'openmmlab':
    Layout(),
    'mmdet':
    Layout(),
    'swin':
    Layout(_MICROSOFT, 'microsoft', norm_eps=1e-5),
    'simmim':
    Layout(_MICROSOFT, 'microsoft', norm_eps=1e-5),
    'timm':
    Layout(
        _TIMM,
        'microsoft',
        without=('relative_position_index', 'relative_coords_table')),
}

COORDS = 'attn.w_msa.relative_coords_table'
# Offsets run to 8 at the edge of the window of the pre-training, and their
# logarithm is taken to the base 8.
SCALE = 8


def infer_settings(
        tensors: Tensors,
        norm_eps: Optional[float] = None,
        window_size: Optional[Sequence[int]] = None,
        pretrained_window_sizes: Optional[Sequence[int]] = None
) -> Dict[str, Any]:
    """Arguments of ``mmpretrain.SwinTransformerV2`` that tensors fit.

    Args:
        tensors (dict[str, Tensor]): In our names, without a prefix.
        norm_eps (float, optional): Eps of all LayerNorms. Defaults to None,
            not known.
        window_size (list[int], optional): The window of each stage, or of all
            of them, in a file without the buffers that tell it. Defaults to
            None, not known.
        pretrained_window_sizes (list[int], optional): The windows whose edges
            limit the scaled offsets, likewise. Defaults to None: those of
            ``window_size``.

    Raises:
        ValueError: If a tensor that tells a setting is missing.
    """
    matches = (re.match(r'stages\.(\d+)\.blocks\.(\d+)\.', k) for k in tensors)
    blocks = {(int(match[1]), int(match[2])) for match in matches if match}
    stages = range(1 + max((stage for stage, _ in blocks), default=0))
    depths = [sum(of == stage for of, _ in blocks) for stage in stages]
    try:
        num_heads = [
            len(tensors[f'stages.{stage}.blocks.0.attn.w_msa.logit_scale'])
            for stage in stages
        ]
        embed_dims, in_channels, patch_size, _ = tensors[
            'patch_embed.projection.weight'].shape
    except (KeyError, ValueError) as error:
        raise ValueError('expected the tensors of a whole Swin V2, found none '
                         f'that tells its heads or width ({error})') from None
    tables = [tensors.get(f'stages.{i}.blocks.0.{COORDS}') for i in stages]
    told = [
        _for_stages(window_size, len(stages)),
        _for_stages(pretrained_window_sizes or window_size, len(stages))
    ]
    if all(table is not None for table in tables):
        windows, pretrained = ([
            read(table) for table in tables if table is not None
        ] for read in (_window_of, _window_of_scale))
        if window_size and told != [windows, pretrained]:
            raise ValueError(f'expected windows {windows} and, of the scale, '
                             f'{pretrained}, which the tensors tell, got '
                             f'{told[0]} and {told[1]}')
    elif window_size:
        windows, pretrained = told
    else:
        raise ValueError(
            f'expected tensors stages.I.blocks.0.{COORDS}, which tell the '
            'windows, found not all of them; files of timm lack them: say '
            'the windows by --window-size')
    last = len(stages) - 1
    extra = [
        block for stage, block in blocks
        if f'stages.{stage}.blocks.{block}.norm3.weight' in tensors
    ]
    settings: Dict[str, Any] = dict(
        arch=dict(
            embed_dims=embed_dims,
            depths=depths,
            num_heads=num_heads,
            extra_norm_every_n_blocks=1 + min(extra, default=-1)),
        in_channels=in_channels,
        patch_size=patch_size,
        window_size=windows,
        pretrained_window_sizes=pretrained,
        out_indices=[
            i for i in stages if i == last or f'norm{i}.weight' in tensors
        ])
    if norm_eps is not None:
        settings.update(_norms(norm_eps))
    if 'absolute_pos_embed' in tensors:
        side = round(tensors['absolute_pos_embed'].shape[1]**0.5)
        settings.update(use_abs_pos_embed=True, img_size=side * patch_size)
    return settings


def _for_stages(windows: Optional[Sequence[int]], stages: int) -> List[int]:
    """One window for each stage; none if they are not known."""
    if not windows:
        return []
    windows = list(windows) * (stages if len(windows) == 1 else 1)
    if len(windows) != stages or min(windows) < 1:
        raise ValueError(f'expected one window, or one for each of {stages} '
                         f'stages, at least 1, got {windows}')
    return windows


def _window_of(coords: Tensor) -> int:
    """The window whose scaled offsets (1, 2 * w - 1, 2 * w - 1, 2) are."""
    return (coords.shape[1] + 1) // 2


def _window_of_scale(coords: Tensor) -> int:
    """The window whose edge the scaled offsets call ``SCALE``."""
    window = _window_of(coords)
    offset = SCALE**coords.max().item() - 1  # scaled, of the window's edge
    if not 0 < offset < float('inf'):  # a window of one token
        return window
    return round(SCALE * (window - 1) / offset) + 1


def _norms(eps: float) -> Dict[str, Any]:
    norm = dict(norm_cfg=dict(type='LN', eps=eps))
    return dict(
        norm,
        patch_cfg=norm,
        stage_cfgs=dict(
            block_cfgs=norm, downsample_cfg=dict(norm, use_post_norm=True)))


def declared_settings(cfg: Dict[str, Any]) -> Dict[str, Any]:
    """The same arguments as far as a backbone's config names them.

    The eps of the norms is taken from ``norm_cfg``, the parts of the stages
    and of the patch embedding may name others.

    Raises:
        ValueError: If a value is not what the argument takes.
    """
    zoo = GreenMIMSwinTransformerV2.arch_zoo
    arch = cfg.get('arch', 'tiny')
    arch = zoo.get(arch.lower()) if isinstance(arch, str) else arch
    if not isinstance(arch, dict) or arch.keys() != zoo['tiny'].keys():
        raise ValueError(
            f'expected an arch of Swin V2, got {cfg.get("arch")!r}')
    depths = [int(depth) for depth in arch['depths']]
    windows = cfg.get('window_size', 8)
    windows = [windows] * len(depths) if isinstance(windows, int) else windows
    pretrained = cfg.get('pretrained_window_sizes', [0] * len(depths))
    stage = cfg.get('stage_cfgs', {})
    stage = stage[0] if isinstance(stage, (list, tuple)) else stage
    # The class puts the norm behind the merging unless it is told otherwise.
    merging = stage.get('downsample_cfg', dict(use_post_norm=True))
    return dict(
        arch=dict(
            embed_dims=int(arch['embed_dims']),
            depths=depths,
            num_heads=[int(heads) for heads in arch['num_heads']],
            extra_norm_every_n_blocks=int(arch['extra_norm_every_n_blocks'])),
        in_channels=int(cfg.get('in_channels', 3)),
        patch_size=int(cfg.get('patch_size', 4)),
        img_size=image_size(cfg.get('img_size', 256)),
        window_size=[int(window) for window in windows],
        pretrained_window_sizes=[
            int(old) or int(own) for old, own in zip(pretrained, windows)
        ],
        out_indices=[int(i) for i in cfg.get('out_indices', (3, ))],
        use_abs_pos_embed=bool(cfg.get('use_abs_pos_embed', False)),
        patch_cfg=_declared_norm(cfg.get('patch_cfg', {})),
        stage_cfgs=dict(
            block_cfgs=_declared_norm(stage.get('block_cfgs', {})),
            downsample_cfg=dict(
                _declared_norm(merging),
                use_post_norm=bool(merging.get('use_post_norm', False)))),
        **_declared_norm(cfg))


def _declared_norm(cfg: Dict[str, Any]) -> Dict[str, Any]:
    """The eps of a LayerNorm; 1e-5 is PyTorch's."""
    eps = float(cfg.get('norm_cfg', {}).get('eps', 1e-5))
    return dict(norm_cfg=dict(type='LN', eps=eps))


def windows_of(settings: Dict[str, Any]) -> List[int]:
    """The window of each stage."""
    return list(settings['window_size'])


def resize_windows(tensors: Tensors,
                   windows: Sequence[int]) -> Tuple[Tensors, Tuple[str, ...]]:
    """Leave out the buffers of other windows; no weight depends on them."""
    kept = {}
    for name, tensor in tensors.items():
        match = re.match(r'stages\.(\d+)\..*\.relative_(\w+)$', name)
        if match is not None:
            side = 2 * windows[int(match[1])] - 1
            area = windows[int(match[1])]**2
            if tensor.shape[1] != (side
                                   if match[2] == 'coords_table' else area):
                continue
        kept[name] = tensor
    return kept, ()


def adapt(settings: Dict[str, Any], windows: Sequence[int],
          maps: bool) -> Dict[str, Any]:
    """Other windows at the old scale of offsets, and the outputs for maps."""
    settings = {**settings, 'window_size': list(windows)}
    return outputs_of_stages(settings, windows, maps)


def build(settings: Dict[str, Any]) -> nn.Module:
    return GreenMIMSwinTransformerV2(**settings)


SWIN_V2 = Family(
    name='swin_v2',
    # MMPretrain's takes no buffers from a file, and warns that they miss.
    types=('greenmim.GreenMIMSwinTransformerV2',
           'mmpretrain.SwinTransformerV2'),
    pattern=r'attn\.w_msa\.logit_scale$',
    merged=r'^stages\.\d+\.downsample\.reduction\.',
    passing=r'(^|\.)(mask_token|attn_mask)$',
    layouts=LAYOUTS,
    infer_settings=infer_settings,
    declared_settings=declared_settings,
    build=build,
    untraced=('window_size', 'pretrained_window_sizes'),
    windows_of=windows_of,
    resize_windows=resize_windows,
    adapt=adapt)
