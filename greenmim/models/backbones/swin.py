# Copyright (c) greenmim authors. All rights reserved.
r"""Swin Transformer, V1 and V2, that computes visible mask units only.

Both run the modules of MMPretrain's dense models. V1 is dot-product attention
with a learned table of biases. For the queries q and keys k of a head of V2,
its scale :math:`\tau` and the network MLP of relative positions (`Swin
Transformer V2 <https://arxiv.org/abs/2111.09883>`_, sections 3.2 and 3.3)::

    logit_ij = min(exp(tau), 100) * cos(q_i, k_j)
               + 16 * sigmoid(MLP(log-spaced offset of i and j))

This is dot-product attention of normalised queries and keys with a table of
biases that the network computes, so that the two share everything else.
``x_BKTC`` are unit-major tokens; the letters are defined in
:mod:`greenmim.ops`.
"""
import math
from typing import Any, Callable, List, Sequence, Tuple, Union

import torch
from mmengine.logging import print_log
from mmpretrain.models import SwinTransformer, SwinTransformerV2
from mmpretrain.models.backbones.swin_transformer import SwinBlock
from mmpretrain.models.backbones.swin_transformer_v2 import SwinBlockV2
from mmpretrain.models.utils import (ShiftWindowMSA, WindowMSA, WindowMSAV2,
                                     resize_pos_embed)
from torch import Tensor, nn
from torch.nn import functional as F

from greenmim.ops import (GroupIndex, MaskPlan, StageWindows, Window,
                          patches_of_units)
from greenmim.ops.group_attention import check_backend
from greenmim.registry import MODELS
from ..visible import (CompileBlocks, Compiled, Divisors, VisibleBackbone,
                       check_in_units, check_last_stage, draw_drop_paths, drop,
                       ffn_tokens, index_windows, run_block,
                       visible_patch_embed, visible_patch_merging,
                       visible_positions, window_attention)

MAX_LOG_SCALE = math.log(100.)


def before_attention(block: SwinBlock,
                     x_BKTC: Tensor) -> Tuple[Tensor, Tensor, float]:
    """The part of a block of V1 before attention.

    Returns:
        tuple: Queries, keys and values (B, K, T, 3 * C), the table of
        relative position biases, and the scale of the dot products.
    """
    msa = block.attn.w_msa
    qkv = msa.qkv(block.norm1(x_BKTC))
    return qkv, msa.relative_position_bias_table, msa.scale


def after_attention(block: SwinBlock, x_BKTC: Tensor, attended: Tensor,
                    divisors: Divisors) -> Tensor:
    """The part of a block of V1 after attention, the output of the block."""
    msa = block.attn.w_msa
    attended = msa.proj_drop(msa.proj(attended))
    x_BKTC = x_BKTC + drop(attended, divisors[0])
    return x_BKTC + drop(
        ffn_tokens(block.ffn, block.norm2(x_BKTC)), divisors[1])


def before_cosine_attention(block: SwinBlockV2,
                            x_BKTC: Tensor) -> Tuple[Tensor, Tensor, float]:
    """The part of a block of V2 before attention.

    See :func:`before_attention`. Queries and keys are normalised, queries
    scaled, and the scale of the dot products is 1.
    """
    msa = block.attn.w_msa
    bias = None
    if msa.q_bias is not None:
        bias = torch.cat(
            [msa.q_bias,
             msa.v_bias.new_zeros(msa.embed_dims), msa.v_bias])
    qkv = F.linear(x_BKTC, msa.qkv.weight, bias)
    q, k, v = qkv.unflatten(-1, (3, msa.num_heads, -1)).unbind(-3)
    scale = msa.logit_scale.clamp(max=MAX_LOG_SCALE).exp().view(-1, 1)
    q = F.normalize(q, dim=-1) * scale
    k = F.normalize(k, dim=-1)
    qkv = torch.stack([q.to(qkv), k.to(qkv), v], dim=-3).flatten(-3)
    table = msa.cpb_mlp(msa.relative_coords_table)
    return qkv, 16 * table.view(-1, msa.num_heads).sigmoid(), 1.


def after_cosine_attention(block: SwinBlockV2, x_BKTC: Tensor,
                           attended: Tensor, divisors: Divisors) -> Tensor:
    """The part of a block of V2 after attention, see `after_attention`."""
    msa = block.attn.w_msa
    attended = msa.proj_drop(msa.proj(attended))
    x_BKTC = x_BKTC + block.norm1(drop(attended, divisors[0]))
    hidden = drop(ffn_tokens(block.ffn, x_BKTC), divisors[1])
    x_BKTC = x_BKTC + block.norm2(hidden)
    return block.norm3(x_BKTC) if block.extra_norm else x_BKTC


class VisibleSwin(VisibleBackbone):
    """The masked forward of a dense Swin Transformer.

    A mixin; list it before the dense class. The class provides the attributes
    without a value and :meth:`merging_before`.

    ``compile_blocks`` compiles what surrounds attention. Attention itself
    stays out of the graphs: its shapes change with every mask, those around
    it only with the number of visible units.
    """

    #: The class of window attention that the masked forward computes.
    msa_type: type
    #: See :func:`before_attention`.
    before: Callable[[nn.Module, Tensor], Tuple[Tensor, Tensor, float]]
    #: See :func:`after_attention`.
    after: Callable[[nn.Module, Tensor, Tensor, Divisors], Tensor]

    # Attributes of the dense parent
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

    def __init__(self,
                 *args: Any,
                 attn_backend: str = 'auto',
                 compile_blocks: CompileBlocks = False,
                 **kwargs: Any) -> None:
        check_backend(attn_backend)
        super().__init__(*args, **kwargs)
        self.attn_backend = attn_backend
        self._before, self._after = (
            Compiled.of_stages(function, self.num_layers, compile_blocks)
            for function in (type(self).before, type(self).after))
        # The parents freeze stages when `train` is called, which is after
        # distributed training has looked for what has gradients.
        self.train()

    def merging_before(self, stage: int) -> Any:
        """The patch merging in front of a stage, or None."""
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
    def reads_map_size(self) -> bool:
        """Whether there are positions that are resized to the map."""
        return self.use_abs_pos_embed

    def forward_visible(self, images_BCHW: Tensor,
                        plan: MaskPlan) -> List[Tensor]:
        """Every stage's tokens, (B, K, T_i, C_i).

        A stage in ``out_indices`` is normed, as in the dense model, except
        for norms that follow the downsampling
        (``out_after_downsample``).
        """
        grid = plan.layout.grid
        units = plan.layout.units.to(images_BCHW.device, non_blocking=True)
        patches = patches_of_units(images_BCHW, units, self.unit_size,
                                   self.patch_size)
        x_BKTC = visible_patch_embed(self.patch_embed, patches)
        if self.use_abs_pos_embed:
            side = self._side(0)
            embed = resize_pos_embed(self.absolute_pos_embed,
                                     self.patch_resolution,
                                     (grid[0] * side, grid[1] * side),
                                     self.interpolate_mode,
                                     self.num_extra_tokens)
            x_BKTC = x_BKTC + visible_positions(embed, units, grid)
        x_BKTC = self.drop_after_pos(x_BKTC)

        outs = []
        all_groups = plan.groups_on(x_BKTC.device)
        for i, (stage, groups) in enumerate(zip(self.stages, all_groups)):
            merging = self.merging_before(i)
            if merging is not None:
                x_BKTC = visible_patch_merging(merging, x_BKTC)
            index = index_windows(groups, self.num_heads[i], x_BKTC.device)
            dropped = draw_drop_paths(
                [(block.attn.drop, block.ffn.dropout_layer)
                 for block in stage.blocks], x_BKTC)
            for block, divisors in zip(stage.blocks, dropped):
                x_BKTC = run_block(block.with_cp, self._forward_block, i,
                                   block, x_BKTC, divisors,
                                   index[_window(block.attn)])
            if self.has_norm(i):
                outs.append(getattr(self, f'norm{i}')(x_BKTC))
            else:
                outs.append(x_BKTC)
        return outs

    def _forward_block(self, stage: int, block: Any, x_BKTC: Tensor,
                       divisors: Divisors, index: GroupIndex) -> Tensor:
        """The output of a block, (B, K, T, C)."""
        qkv, bias_table, scale = self._before[stage](block, x_BKTC)
        attended = window_attention(block.attn.w_msa, qkv, index, bias_table,
                                    scale, self.attn_backend)
        return self._after[stage](block, x_BKTC, attended, divisors)

    def stage_windows(self) -> List[StageWindows]:
        """The window attention of every stage."""
        return [
            StageWindows(
                self._side(i),
                tuple(
                    dict.fromkeys(
                        _window(block.attn) for block in stage.blocks)))
            for i, stage in enumerate(self.stages)
        ]

    def _side(self, stage: int) -> int:
        """Tokens along a unit's side in a stage."""
        return 2**(self.num_layers - 1 - stage)

    def check_masked(self) -> None:
        """Refuse layers that read beyond a mask unit."""
        check_last_stage(self.out_indices, self.num_layers - 1)
        check_in_units(self.patch_embed.projection, self.unit_size)
        for merging in map(self.merging_before, range(self.num_layers)):
            if merging is not None:
                check_in_units(merging.sampler, 2)
        for stage in self.stages:
            for block in stage.blocks:
                if type(block.attn.w_msa) is not self.msa_type:
                    raise ValueError(
                        'expected the window attention '
                        f'{self.msa_type.__name__} for a masked forward, got '
                        f'{type(block.attn.w_msa)}')


def _window(attn: ShiftWindowMSA) -> Window:
    return Window(attn.window_size, attn.shift_size, attn.window_size,
                  attn.pad_small_map)


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
        compile_blocks (bool | str): Compile the blocks of the masked forward
            by ``torch.compile``, which fuses norms, biases, activations and
            residuals, two functions for each stage; a string is its mode.
            Defaults to False.
        **kwargs: Other arguments of ``mmpretrain.SwinTransformer``.
    """

    msa_type = WindowMSA
    before = staticmethod(before_attention)
    after = staticmethod(after_attention)

    def __init__(self,
                 arch: Union[str, dict] = 'tiny',
                 *args: Any,
                 window_size: Union[int, Sequence[int]] = 7,
                 stage_cfgs: Union[Sequence[dict], dict] = dict(),
                 **kwargs: Any) -> None:
        if not isinstance(window_size, int):
            settings = arch
            if isinstance(settings, str):
                settings = self.arch_zoo.get(settings.lower(), {})
            # The parent refuses an arch without depths.
            num_stages = len(settings.get('depths', window_size))
            stage_cfgs = _stage_windows(window_size, stage_cfgs, num_stages)
            window_size = max(window_size)
        super().__init__(
            arch,
            *args,
            window_size=window_size,
            stage_cfgs=stage_cfgs,
            **kwargs)

    def merging_before(self, stage: int) -> Any:
        """The patch merging in front of a stage, or None."""
        return self.stages[stage - 1].downsample if stage else None

    def has_norm(self, stage: int) -> bool:
        """Whether the dense model norms the tokens of a stage.

        With ``out_after_downsample``, norms are for downsampled tokens.
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


@MODELS.register_module()
class GreenMIMSwinTransformerV2(VisibleSwin, SwinTransformerV2):
    """Swin Transformer V2 with group window attention.

    Without a mask it is MMPretrain's ``SwinTransformerV2``, whose parameters,
    names and shapes it has. With a mask it computes visible units only, as in
    `Green Hierarchical Vision Transformer for Masked Image Modeling
    <https://arxiv.org/abs/2205.13515>`_.

    Visible-only attention has no padding, where windows do not divide the
    map. Where a window exceeds the map and ``pad_small_map`` is off, it
    shrinks to the map, which the dense model refuses, and keeps the biases
    that the full window has at the same offsets.

    Args:
        attn_backend (str): Backend of the masked forward's attention:
            ``'auto'``, ``'eager'``, ``'sdpa'`` or ``'fused'``, see
            :mod:`greenmim.ops.group_attention`. Defaults to ``'auto'``.
        compile_blocks (bool | str): Compile the blocks of the masked forward
            by ``torch.compile``, which fuses norms, biases, activations and
            residuals, two functions for each stage; a string is its mode.
            Defaults to False.
        **kwargs: Other arguments of ``mmpretrain.SwinTransformerV2``.
    """

    msa_type = WindowMSAV2
    before = staticmethod(before_cosine_attention)
    after = staticmethod(after_cosine_attention)

    def merging_before(self, stage: int) -> Any:
        """The patch merging in front of a stage, or None."""
        return self.stages[stage].downsample

    def get_layer_depth(self,
                        param_name: str,
                        prefix: str = '') -> Tuple[int, int]:
        """The depth of a parameter, and the number of depths.

        Patch merging counts with the block before it, as in Swin V1; norms
        and everything outside the backbone have the last depth.
        """
        num_depths = sum(self.depths) + 2
        depth = num_depths - 1
        parts = param_name[len(prefix):].split('.')
        if param_name.startswith(prefix):
            if parts[0] in ('patch_embed', 'absolute_pos_embed'):
                depth = 0
            elif parts[0] == 'stages':
                depth = sum(self.depths[:int(parts[1])])
                if parts[2] == 'blocks':
                    depth += int(parts[3]) + 1
        return depth, num_depths

    def _delete_reinit_params(self, state_dict: dict, prefix: str, *args:
                              Any) -> None:
        """Keep the buffers of this window instead of the checkpoint's.

        The parent deletes them from the checkpoint and then reports them as
        missing.
        """
        for name, buffer in self.named_buffers():
            if 'relative_' in name:
                state_dict[prefix + name] = buffer


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
