# Copyright (c) greenmim authors. All rights reserved.
"""Swin Transformer that computes visible mask units only."""
from typing import Any, List, Sequence, Union

from mmengine.logging import print_log
from mmpretrain.models import SwinTransformer
from mmpretrain.models.utils import WindowMSA
from torch import Tensor
from torch.nn import functional as F

from greenmim.registry import MODELS
from ..visible import VisibleSwin, after_attention, before_attention


@MODELS.register_module()
class GreenMIMSwinTransformer(VisibleSwin, SwinTransformer):
    """Swin Transformer with group window attention.

    Without a mask it is MMPretrain's ``SwinTransformer``, whose parameters,
    names and shapes it has. With a mask it computes visible units only, as in
    `Green Hierarchical Vision Transformer for Masked Image Modeling
    <https://arxiv.org/abs/2205.13515>`_.

    Where windows do not divide the map, the dense model pads with zero tokens
    that take part in its attention. Visible-only attention has no padding.
    Where a window exceeds the map and ``pad_small_map`` is off, it shrinks to
    the map, which the dense model refuses.

    Args:
        arch (str | dict): ``'tiny'``, ``'small'``, ``'base'``, ``'large'``,
            or a dict of ``embed_dims``, ``depths`` and ``num_heads``.
            Defaults to ``'tiny'``.
        window_size (int | Sequence[int]): Window size, one for all stages or
            one for each of them. Defaults to 7.
        stage_cfgs (Sequence[dict] | dict): Extra config of the stages.
            Defaults to an empty dict.
        attn_backend (str): Backend of the masked forward's attention:
            ``'auto'``, ``'eager'``, ``'sdpa'`` or ``'fused'``, see
            :mod:`greenmim.ops.group_attention`. Defaults to ``'auto'``.
        compile_blocks (bool): Compile the blocks of the masked forward by
            ``torch.compile``, which fuses norms, biases, activations and
            residuals. Masks that hide the same number of units share the
            compiled code. Defaults to False.
        **kwargs: Other arguments of ``mmpretrain.SwinTransformer``.
    """

    msa_type = WindowMSA

    def __init__(self,
                 arch: Union[str, dict] = 'tiny',
                 *args: Any,
                 window_size: Union[int, Sequence[int]] = 7,
                 stage_cfgs: Union[Sequence[dict], dict] = dict(),
                 attn_backend: str = 'auto',
                 compile_blocks: bool = False,
                 **kwargs: Any) -> None:
        if not isinstance(window_size, int):
            settings = arch
            if isinstance(settings, str):
                settings = self.arch_zoo.get(settings.lower(), {})
            # The parent tells of an arch without depths.
            num_stages = len(settings.get('depths', window_size))
            stage_cfgs = _stage_windows(window_size, stage_cfgs, num_stages)
            window_size = max(window_size)
        super().__init__(
            arch,
            *args,
            window_size=window_size,
            stage_cfgs=stage_cfgs,
            **kwargs)
        self.set_runner(before_attention, after_attention, attn_backend,
                        compile_blocks)

    def merging_before(self, stage: int) -> Any:
        """The patch merging in front of a stage, None where there is none."""
        return self.stages[stage - 1].downsample if stage else None

    def has_norm(self, stage: int) -> bool:
        """Whether the dense model norms the tokens of a stage.

        With ``out_after_downsample``, norms are made for what comes after.
        """
        return super().has_norm(stage) and not (
            self.out_after_downsample
            and self.stages[stage].downsample is not None)

    def _load_from_state_dict(self, state_dict: dict, prefix: str,
                              local_metadata: dict, *args: Any) -> None:
        """Rename old keys as the parent does for exactly its own class."""
        if (local_metadata.get('version') or 0) < 3:
            last = self.num_layers - 1
            for key in list(state_dict):
                if key.startswith(f'{prefix}norm.'):
                    new = key.replace(f'{prefix}norm.', f'{prefix}norm{last}.')
                    state_dict[new] = state_dict.pop(key)
                elif key.startswith(prefix) and 'attn_mask' in key:
                    del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, local_metadata,
                                      *args)

    def _prepare_relative_position_bias_table(self, state_dict: dict,
                                              prefix: str, *args: Any) -> None:
        """Resize tables of another window size.

        The parent does so by a SciPy function that no longer exists.
        """
        resized = []
        own = self.state_dict()
        for name, table in own.items():
            loaded = state_dict.get(prefix + name)
            if (not name.endswith('relative_position_bias_table')
                    or loaded is None or loaded.shape == table.shape):
                continue
            window, given = bias_table_window(table), bias_table_window(loaded)
            if loaded.shape[1] != table.shape[1]:
                raise ValueError(
                    f'expected {prefix}{name} of window {window}, '
                    f'{table.shape[1]} heads, got window {given}, '
                    f'{loaded.shape[1]} heads; build the backbone with the '
                    'arch that the checkpoint was trained with')
            state_dict[prefix + name] = resize_bias_table(loaded, window)
            index = name.replace('bias_table', 'index')
            state_dict[prefix + index] = own[index]
            resized.append(f'{name} from window {given} to {window}')
        if resized:
            print_log(
                f'Resized {len(resized)} relative position bias tables: '
                f'{resized[0]}, ...',
                logger='current')


def _stage_windows(window_sizes: Sequence[int],
                   stage_cfgs: Union[Sequence[dict],
                                     dict], num_stages: int) -> List[dict]:
    """Write a window size into the config of every stage."""
    if isinstance(stage_cfgs, dict):
        stage_cfgs = [stage_cfgs] * num_stages
    if not len(window_sizes) == len(stage_cfgs) == num_stages:
        raise ValueError(
            f'expected one window size for each of {num_stages} stages, got '
            f'{list(window_sizes)} for {len(stage_cfgs)} stage_cfgs')
    return [
        dict(cfg, window_size=size)
        for cfg, size in zip(stage_cfgs, window_sizes)
    ]


def bias_table_window(table: Tensor) -> int:
    """The window of a table of relative position biases.

    A window of w x w tokens has (2 * w - 1)**2 offsets between two tokens, in
    row-major order, and a bias for each offset and head.

    Args:
        table (Tensor): Shape ((2 * w - 1)**2, num_heads).

    Returns:
        int: The side of the window in tokens, w.

    Raises:
        ValueError: If this is no table of a square window.
    """
    side = round(table.shape[0]**0.5)
    if table.ndim != 2 or side**2 != table.shape[0] or side % 2 == 0:
        raise ValueError(
            'expected a bias table of shape ((2 * window - 1)**2, heads), '
            f'got {tuple(table.shape)}')
    return (side + 1) // 2


def resize_bias_table(table: Tensor, window: int) -> Tensor:
    """Interpolate a table for another window, bicubically, head by head.

    The table is stretched as an image is, with offset zero in its centre: what
    Swin's own code and MMDetection do on loading.

    Args:
        table (Tensor): Shape ((2 * w - 1)**2, num_heads).
        window (int): The new window.

    Returns:
        Tensor: Shape ((2 * window - 1)**2, num_heads), same dtype.

    Raises:
        ValueError: If this is no table of a square window.
    """
    side = 2 * bias_table_window(table) - 1
    if window == (side + 1) // 2:
        return table
    maps = table.T.reshape(1, -1, side, side).double()
    size = (2 * window - 1, 2 * window - 1)
    maps = F.interpolate(maps, size, mode='bicubic', align_corners=False)
    return maps.flatten(2)[0].T.to(table.dtype).contiguous()
