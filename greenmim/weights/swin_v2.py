# Copyright (c) greenmim authors. All rights reserved.
"""Swin Transformer V2: layouts, settings and windows.

A small network computes the position biases, so the weights do not depend on
the window; only the buffers that list a window's offsets do.
"""
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from torch import Tensor

from greenmim.models import GreenMIMSwinTransformerV2
from .family import norm_config, shape_of
from .layouts import Layout, Tensors
from .swin import BLOCKS, OLDER_TIMM, TRANSFORMERS, Swin

# We merge at the beginning of a stage as timm does, Microsoft at the end of
# the previous stage.
_MICROSOFT = BLOCKS + (
    ('layers.{i}.blocks.{j}.norm3.', 'stages.{i}.blocks.{j}.norm3.'),
    ('layers.{i}.downsample.', 'stages.{i+1}.downsample.'),
    ('absolute_pos_embed', 'absolute_pos_embed'),
    ('mask_token', 'mask_token'),
)
# timm does not have the extra norms (norm3) of the huge model.
_TIMM = BLOCKS + (('layers.{i}.downsample.', 'stages.{i}.downsample.'), )
_TRANSFORMERS = TRANSFORMERS + tuple(
    ('encoder.layers.{i}.blocks.{j}.attention.self.' + theirs,
     'stages.{i}.blocks.{j}.attn.w_msa.' + ours) for theirs, ours in (
         ('query.bias', 'q_bias'),
         ('value.bias', 'v_bias'),
         ('logit_scale', 'logit_scale'),
         ('continuous_position_bias_mlp.', 'cpb_mlp.'),
     )) + (('encoder.layers.{i}.downsample.', 'stages.{i+1}.downsample.'), )

# Ends of the names of buffers that follow from the window alone.
BUFFERS = ('relative_position_index', 'relative_coords_table')
COORDS = 'attn.w_msa.relative_coords_table'
# Offsets are scaled so that those at the edge of the pre-training's window
# are 8; the table holds their logarithm to the base 8.
SCALE = 8

Windows = Union[int, Sequence[int]]


class SwinV2(Swin):
    """Swin Transformer V2."""
    name = 'swin_v2'
    # MMPretrain's class ignores the buffers of a file and warns that they
    # are missing.
    types = ('greenmim.GreenMIMSwinTransformerV2',
             'mmpretrain.SwinTransformerV2')
    cls = GreenMIMSwinTransformerV2
    layouts = {
        'openmmlab': Layout(),
        'mmdet': Layout(),
        'swin': Layout(_MICROSOFT, 'microsoft', norm_eps=1e-5),
        'simmim': Layout(_MICROSOFT, 'microsoft', norm_eps=1e-5),
        'timm': Layout(
            _TIMM, 'microsoft', BUFFERS, older=(OLDER_TIMM, _MICROSOFT)),
        'transformers': Layout(
            _TRANSFORMERS, 'microsoft', BUFFERS, attention='qkv'),
    }  # yapf: disable
    pattern = r'attn\.w_msa\.logit_scale$'
    merged = r'^stages\.\d+\.downsample\.reduction\.'
    hints = ('window_size', 'pretrained_window_sizes')
    one_window = False

    def infer_settings(self,
                       tensors: Tensors,
                       norm_eps: Optional[float] = None,
                       window_size: Windows = (),
                       pretrained_window_sizes: Windows = (),
                       **hints: Any) -> Dict[str, Any]:
        """Both windows are needed for a file without the buffers only.

        By the ``pretrained_window_sizes`` the offsets are scaled; they are
        ``window_size`` unless given.
        """
        depths = self.depths(tensors)
        blocks = [f'stages.{i}.blocks.0.' for i in range(len(depths))]
        heads = [
            shape_of(tensors, f'{block}attn.w_msa.logit_scale', 3)[0]
            for block in blocks
        ]
        extra = [
            j for i, depth in enumerate(depths) for j in range(depth)
            if f'stages.{i}.blocks.{j}.norm3.weight' in tensors
        ]
        settings = self.common_settings(
            tensors,
            dict(
                depths=depths,
                num_heads=heads,
                extra_norm_every_n_blocks=1 + min(extra, default=-1)))
        given = [
            for_stages(window_size, len(depths)),
            for_stages(pretrained_window_sizes or window_size, len(depths))
        ]
        tables = [tensors.get(block + COORDS) for block in blocks]
        if all(table is not None for table in tables):
            found = [
                self.windows(tensors),
                [_scale_window(t) for t in tables if t is not None]
            ]
            if window_size and given != found:
                raise ValueError(
                    f'expected windows {found[0]} and pre-training windows '
                    f'{found[1]}, which the tensors have, got {given[0]} and '
                    f'{given[1]}')
            given = found
        elif not window_size:
            raise ValueError(
                f'expected tensors stages.I.blocks.0.{COORDS}, which hold the '
                'windows, but some are missing; files of timm lack them: pass '
                'the windows by --window-size')
        windows, pretrained = given
        settings.update(
            window_size=windows[0] if len(set(windows)) == 1 else windows,
            pretrained_window_sizes=pretrained)
        if norm_eps:
            norm = dict(norm_cfg=norm_config(norm_eps))
            merging = dict(norm, use_post_norm=True)
            settings.update(
                norm,
                patch_cfg=norm,
                stage_cfgs=dict(block_cfgs=norm, downsample_cfg=merging))
        return settings

    def windows(self, tensors: Tensors) -> List[int]:
        return [
            _window(tensors[f'stages.{i}.blocks.0.{COORDS}'])
            for i in range(len(self.depths(tensors)))
        ]

    def adapt(self, settings: Dict[str, Any], windows: Sequence[int],
              maps: bool) -> Dict[str, Any]:
        """Change the windows, but not the scale of the offsets."""
        size = windows[0] if len(set(windows)) == 1 else list(windows)
        return super().adapt({**settings, 'window_size': size}, windows, maps)

    def timm_model(self, settings: Dict[str, Any], img_size: Any,
                   windows: Sequence[int]) -> Tuple[str, Dict[str, Any]]:
        _, arguments = super().timm_model(settings, img_size, windows)
        key = 'pretrained_window_sizes'
        return 'swin_transformer_v2.SwinTransformerV2', {
            **arguments, key: settings[key]
        }

    def transformers_model(self, settings: Dict[str, Any], img_size: Any,
                           norm_eps: Optional[float],
                           windows: Sequence[int]) -> Dict[str, Any]:
        """Its windows are the same, but no larger than the map."""
        config = super().transformers_model(settings, img_size, norm_eps,
                                            windows)
        side = img_size if isinstance(img_size, int) else min(img_size)
        shrunk = _shrunk(max(windows), side // settings['patch_size'], windows)
        if shrunk != list(windows):
            raise ValueError(
                'expected the windows of transformers, which are those of '
                f'the first stage or the size of the map, {shrunk} for '
                f'images of {img_size} pixels, got {list(windows)}; set '
                '--window-size')
        key = 'pretrained_window_sizes'
        return dict(
            config,
            architectures=['Swinv2Model'],
            model_type='swinv2',
            **{key: settings[key]})

    def hints_from_transformers(self, config: Dict[str,
                                                   Any]) -> Dict[str, Any]:
        """A scale of 0 is that of the window."""
        size = config.get('image_size', 224)
        side = (size if isinstance(size, int) else min(size)) // config.get(
            'patch_size', 4)
        depths = config.get('depths', [2, 2, 6, 2])
        windows = _shrunk(config.get('window_size', 7), side, depths)
        scales = config.get('pretrained_window_sizes') or [0] * len(depths)
        return dict(
            window_size=windows,
            pretrained_window_sizes=[
                scale or window for scale, window in zip(scales, windows)
            ])


def _shrunk(window: int, side: int, stages: Sequence[int]) -> List[int]:
    """A window in every stage, no larger than its map; ``side`` is that of
    the first stage's map."""
    return [min(window, side // 2**i) for i in range(len(stages))]


def for_stages(windows: Windows, stages: int) -> List[int]:
    """One window for each stage; empty if they are unknown."""
    windows = [windows] if isinstance(windows, int) else list(windows)
    windows = windows * (stages if len(windows) == 1 else 1)
    if windows and (len(windows) != stages or min(windows) < 1):
        raise ValueError(f'expected one window, or one for each of {stages} '
                         f'stages, at least 1, got {windows}')
    return windows


def _window(coords: Tensor) -> int:
    """The window w of scaled offsets (1, 2 * w - 1, 2 * w - 1, 2)."""
    return (coords.shape[1] + 1) // 2


def _scale_window(coords: Tensor) -> int:
    """The window at whose edge the scaled offset is ``SCALE``."""
    window = _window(coords)
    offset = SCALE**coords.max().item() - 1  # scaled, at the window's edge
    if not 0 < offset < float('inf'):  # a window of one token
        return window
    return round(SCALE * (window - 1) / offset) + 1
