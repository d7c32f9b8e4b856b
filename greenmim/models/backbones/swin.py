# Copyright (c) greenmim authors. All rights reserved.
"""Swin Transformer that computes visible mask units only."""
from typing import Any, List, Sequence, Tuple, Union

from mmengine.logging import print_log
from mmpretrain.models import SwinTransformer
from mmpretrain.models.utils import ShiftWindowMSA, WindowMSA, resize_pos_embed
from torch import Tensor

from greenmim.ops import (BACKENDS, MaskPlan, StageWindows, Window,
                          bias_table_window, gather_units, patches_of_units,
                          resize_bias_table)
from greenmim.registry import MODELS
from ..layers import (SwinBlockRunner, VisibleBackbone, index_windows,
                      visible_patch_embed, visible_patch_merging)


@MODELS.register_module()
class GreenMIMSwinTransformer(VisibleBackbone, SwinTransformer):
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

    def __init__(self,
                 arch: Union[str, dict] = 'tiny',
                 *args: Any,
                 window_size: Union[int, Sequence[int]] = 7,
                 stage_cfgs: Union[Sequence[dict], dict] = dict(),
                 attn_backend: str = 'auto',
                 compile_blocks: bool = False,
                 **kwargs: Any) -> None:
        if attn_backend not in BACKENDS:
            raise ValueError(f'expected attn_backend to be one of {BACKENDS}, '
                             f'got {attn_backend!r}')
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
        self._run_block = SwinBlockRunner(attn_backend, compile_blocks)
        self.patch_size: int = self.patch_embed.projection.kernel_size[0]

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels: the stride of the last stage."""
        return self.patch_size * 2**(self.num_layers - 1)

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return self.patch_embed.projection.in_channels

    def forward_visible(self, x: Tensor, plan: MaskPlan) -> List[Tensor]:
        """Every stage's tokens, (B, K, T_i, C_i).

        Those of a stage in ``out_indices`` have passed its norm, as in the
        dense model, but for norms that follow the downsampling
        (``out_after_downsample``).
        """
        layout = plan.layout
        grid = layout.grid
        units = layout.units.to(x.device, non_blocking=True)

        patches = patches_of_units(x, units, self.unit_size, self.patch_size)
        x = visible_patch_embed(self.patch_embed, patches)
        if self.use_abs_pos_embed:
            x = x + self._visible_pos_embed(units, grid)
        x = self.drop_after_pos(x)

        outs = []
        num_sequences = 1 if layout.num_masks > 1 else len(x)
        for i, (stage, groups) in enumerate(zip(self.stages, plan.groups)):
            map_size = (grid[0] * self._side(i), grid[1] * self._side(i))
            windows = [
                _window(block.attn).fit(map_size, block.attn.pad_small_map)
                for block in stage.blocks
            ]
            index = index_windows(groups, windows, num_sequences,
                                  self.num_heads[i], x.device)
            shape = x.shape
            x = x.flatten(1, 2)
            for block, window in zip(stage.blocks, windows):
                x = self._run_block(block, x, index[window])
            x = x.view(shape)
            # With out_after_downsample, norms are made for what comes after.
            has_norm = i in self.out_indices and not (
                self.out_after_downsample and stage.downsample is not None)
            outs.append(getattr(self, f'norm{i}')(x) if has_norm else x)
            if stage.downsample is not None:
                x = visible_patch_merging(stage.downsample, x)
        return outs

    def stage_windows(self) -> List[StageWindows]:
        """The window attention of every stage."""
        stages = []
        for i, stage in enumerate(self.stages):
            blocks = [block.attn for block in stage.blocks]
            pad = {attn.pad_small_map for attn in blocks}
            if len(pad) > 1:
                raise ValueError('expected the same pad_small_map for the '
                                 f'blocks of stage {i}, got both')
            windows = dict.fromkeys(map(_window, blocks))
            stages.append(
                StageWindows(self._side(i), tuple(windows), pad.pop()))
        return stages

    def _side(self, stage: int) -> int:
        """Tokens along a unit's side in a stage."""
        return 2**(self.num_layers - 1 - stage)

    def _visible_pos_embed(self, units: Tensor, grid: Tuple[int,
                                                            int]) -> Tensor:
        """Absolute position embedding of the visible tokens, (M, K, T, C)."""
        side = self._side(0)
        map_size = (grid[0] * side, grid[1] * side)
        embed = resize_pos_embed(self.absolute_pos_embed,
                                 self.patch_resolution, map_size,
                                 self.interpolate_mode, self.num_extra_tokens)
        embed = embed.view(grid[0], side, grid[1], side, -1).transpose(1, 2)
        embed = embed.reshape(1, grid[0] * grid[1], side * side, -1)
        if len(units) > 1:
            embed = embed.expand(len(units), -1, -1, -1)
        return gather_units(embed, units)

    def check_masked(self) -> None:
        """Refuse layers that read beyond a mask unit."""
        if self.num_layers - 1 not in self.out_indices:
            raise ValueError(
                'expected the last stage in out_indices, whose norm the '
                f'latent needs, got out_indices={tuple(self.out_indices)}')
        projection = self.patch_embed.projection
        merging = [
            stage.downsample.sampler for stage in self.stages
            if stage.downsample is not None
        ]
        expected = [(projection, (self.patch_size, ) * 2)]
        expected += [(sampler, (2, 2)) for sampler in merging]
        for layer, size in expected:
            geometry = [
                tuple(getattr(layer, name))
                for name in ('kernel_size', 'stride', 'padding', 'dilation')
            ]
            if geometry != [size, size, (0, 0), (1, 1)]:
                raise ValueError(
                    'expected a patch embedding and patch merging whose '
                    f'kernel equals the stride, {size} and without padding '
                    f'or dilation, for a masked forward, got {layer}')
        for stage in self.stages:
            for block in stage.blocks:
                if type(block.attn.w_msa) is not WindowMSA:
                    raise ValueError(
                        'expected the window attention WindowMSA for a '
                        f'masked forward, got {type(block.attn.w_msa)}')

    def train(self, mode: bool = True) -> 'GreenMIMSwinTransformer':
        """Set the training mode; unlike the parent's, it returns self."""
        super().train(mode)
        return self

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


def _window(attn: ShiftWindowMSA) -> Window:
    return Window(attn.window_size, attn.shift_size, attn.window_size)


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
