# Copyright (c) greenmim authors. All rights reserved.
"""What MMPretrain's Swin Transformers have in common with a mask."""
from typing import Any, List, Sequence, Tuple, TypeVar

from mmpretrain.models.utils import ShiftWindowMSA, resize_pos_embed
from torch import Tensor, nn

from greenmim.ops import (BACKENDS, MaskPlan, StageWindows, Window,
                          patches_of_units)
from .positions import visible_positions
from .swin import (After, Before, WindowBlockRunner, visible_patch_embed,
                   visible_patch_merging)
from .visible_backbone import VisibleBackbone, index_windows

Self = TypeVar('Self', bound='VisibleSwin')


class VisibleSwin(VisibleBackbone):
    """The masked forward of a dense Swin Transformer.

    The class calls :meth:`set_runner` when it is built, and provides
    :attr:`msa_type` and :meth:`merging_before`.

    Raises:
        ValueError: In the masked forward, for options of the dense class that
            it does not define.
    """

    #: The class of window attention that the masked forward computes.
    msa_type: type

    # Of the dense parent.
    num_layers: int
    num_heads: Sequence[int]
    out_indices: Sequence[int]
    stages: Any
    patch_embed: Any
    drop_after_pos: nn.Module
    use_abs_pos_embed: bool
    absolute_pos_embed: nn.Parameter
    patch_resolution: Tuple[int, int]
    interpolate_mode: str
    num_extra_tokens: int

    def set_runner(self, before: Before, after: After, attn_backend: str,
                   compile_blocks: bool) -> None:
        """Say how blocks are run.

        Args:
            before (Callable): See :class:`WindowBlockRunner`.
            after (Callable): See there.
            attn_backend (str): See :func:`greenmim.ops.group_attention`.
            compile_blocks (bool): Compile what surrounds attention.

        Raises:
            ValueError: If there is no such backend.
        """
        if attn_backend not in BACKENDS:
            raise ValueError(f'expected attn_backend to be one of {BACKENDS}, '
                             f'got {attn_backend!r}')
        self._run_block = WindowBlockRunner(before, after, attn_backend,
                                            compile_blocks)

    def merging_before(self, stage: int) -> Any:
        """The patch merging in front of a stage, None where there is none."""
        raise NotImplementedError

    def has_norm(self, stage: int) -> bool:
        """Whether the dense model norms the tokens of a stage."""
        return stage in self.out_indices

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.patch_embed.projection.kernel_size[0]

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels: the stride of the last stage."""
        return self.patch_size * 2**(self.num_layers - 1)

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return self.patch_embed.projection.in_channels

    @property
    def reads_map_size(self) -> bool:
        """Whether there are positions that are resized to the map."""
        return self.use_abs_pos_embed

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
            embed = resize_pos_embed(self.absolute_pos_embed,
                                     self.patch_resolution,
                                     self._map_size(0, grid),
                                     self.interpolate_mode,
                                     self.num_extra_tokens)
            x = x + visible_positions(embed, units, grid)
        x = self.drop_after_pos(x)

        outs = []
        num_sequences = 1 if layout.num_masks > 1 else len(x)
        for i, (stage, groups) in enumerate(zip(self.stages, plan.groups)):
            merging = self.merging_before(i)
            if merging is not None:
                x = visible_patch_merging(merging, x)
            map_size = self._map_size(i, grid)
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
            outs.append(
                getattr(self, f'norm{i}')(x) if self.has_norm(i) else x)
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

    def _map_size(self, stage: int, grid: Tuple[int, int]) -> Tuple[int, int]:
        """Height and width of a stage's map in tokens."""
        return grid[0] * self._side(stage), grid[1] * self._side(stage)

    def check_masked(self) -> None:
        """Refuse layers that read beyond a mask unit."""
        if self.num_layers - 1 not in self.out_indices:
            raise ValueError(
                'expected the last stage in out_indices, whose norm the '
                f'latent needs, got out_indices={tuple(self.out_indices)}')
        expected = [(self.patch_embed.projection, (self.patch_size, ) * 2)]
        mergings = map(self.merging_before, range(self.num_layers))
        expected += [(merging.sampler, (2, 2)) for merging in mergings
                     if merging is not None]
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
                if type(block.attn.w_msa) is not self.msa_type:
                    raise ValueError(
                        'expected the window attention '
                        f'{self.msa_type.__name__} for a masked forward, got '
                        f'{type(block.attn.w_msa)}')

    def train(self: Self, mode: bool = True) -> Self:
        """Set the training mode; unlike the parent's, it returns self."""
        super().train(mode)  # type: ignore[misc]
        return self


def _window(attn: ShiftWindowMSA) -> Window:
    return Window(attn.window_size, attn.shift_size, attn.window_size)
