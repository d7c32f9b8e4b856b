# Copyright (c) greenmim authors. All rights reserved.
"""ConvNeXt, V1 and V2, that computes visible mask units only.

``x_BKTC`` are unit-major tokens; the letters are defined in
:mod:`greenmim.ops`.
"""
from typing import Any, List

import torch
from mmpretrain.models import ConvNeXt
from mmpretrain.models.backbones.convnext import ConvNeXtBlock
from mmpretrain.models.utils import GRN
from mmpretrain.models.utils.norm import LayerNorm2d
from torch import Tensor

from greenmim.ops import Halo, MaskPlan, merge_tokens, patches_of_units
from greenmim.registry import MODELS
from ..visible import (CompileBlocks, Compiled, Divisors, VisibleBackbone,
                       check_last_stage, depthwise_tokens, draw_drop_paths,
                       drop, linear_tokens, run_block)


def _norm(norm: LayerNorm2d, x_BKTC: Tensor) -> Tensor:
    return norm(x_BKTC, data_format='channel_last')


def _response_norm(grn: GRN, x_BKTC: Tensor) -> Tensor:
    """Global response normalization over an image's visible tokens.

    The factor of a channel stays in float32 under autocast, since rounding it
    would move all tokens in the same direction.
    """
    dtype = torch.promote_types(x_BKTC.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x_BKTC, 2, (1, 2), True, dtype=dtype)
    norm = norm / (norm.mean(-1, keepdim=True) + grn.eps)
    return x_BKTC * (grn.gamma * norm + 1) + grn.beta


def visible_block(block: ConvNeXtBlock, x_BKTC: Tensor, halo: Halo,
                  divisors: Divisors) -> Tensor:
    """Run a block on visible tokens, (B, K, T, C)."""
    x = depthwise_tokens(block.depthwise_conv, x_BKTC, halo)
    x = block.act(linear_tokens(block.pointwise_conv1, _norm(block.norm, x)))
    if block.grn is not None:
        x = _response_norm(block.grn, x)
    x = linear_tokens(block.pointwise_conv2, x)
    if block.gamma is not None:
        x = x * block.gamma
    return x_BKTC + drop(x, divisors[0])


@MODELS.register_module()
class GreenMIMConvNeXt(VisibleBackbone, ConvNeXt):
    """ConvNeXt whose convolutions see visible units only.

    Without a mask it is MMPretrain's ``ConvNeXt``, whose parameters, names
    and shapes it has. With a mask it computes visible units only: depthwise
    convolutions see zeros instead of masked tokens, like the sparse
    convolutions of `ConvNeXt V2 <https://arxiv.org/abs/2301.00808>`_ and
    `SparK <https://arxiv.org/abs/2301.03580>`_, and global response
    normalization takes its statistics from an image's visible tokens.

    The tokens of a masked forward are normed one by one;
    ``gap_before_final_norm`` is an option of the dense forward.

    Args:
        with_cp (bool): Checkpoint every block: less memory, more time.
            Defaults to False.
        compile_blocks (bool | str): Compile the blocks of the masked forward
            by ``torch.compile``, a function for each stage; a string is its
            mode. Defaults to False.
        **kwargs: Arguments of ``mmpretrain.ConvNeXt``. For V2 pass
            ``use_grn=True, layer_scale_init_value=0.``. Norms other than
            ``LN2d`` work only densely.
    """

    with_cp: bool = False

    def __init__(self,
                 *args: Any,
                 with_cp: bool = False,
                 compile_blocks: CompileBlocks = False,
                 **kwargs: Any) -> None:
        super().__init__(*args, with_cp=with_cp, **kwargs)
        self.with_cp = with_cp
        self._run_block = Compiled.of_stages(visible_block, self.num_stages,
                                             compile_blocks)

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels: the stride of the last stage."""
        stem = self.downsample_layers[0][0]
        return stem.kernel_size[0] * 2**(self.num_stages - 1)

    def forward_visible(self, images_BCHW: Tensor,
                        plan: MaskPlan) -> List[Tensor]:
        """Every stage's tokens, (B, K, T_i, C_i).

        A stage in ``out_indices`` is normed.
        """
        device = images_BCHW.device
        units = plan.layout.units.to(device, non_blocking=True)
        stem, norm = self.downsample_layers[0]
        patches = patches_of_units(images_BCHW, units, self.unit_size,
                                   stem.kernel_size[0])
        x_BKTC = _norm(norm, linear_tokens(stem, patches))
        side = self.unit_size // stem.kernel_size[0]
        outs = []
        for i, stage in enumerate(self.stages):
            if i:
                norm, conv = self.downsample_layers[i]
                x_BKTC = linear_tokens(conv, merge_tokens(_norm(norm, x_BKTC)))
                side //= 2
            padding = stage[0].depthwise_conv.padding[0]
            halo = Halo.from_layout(plan.layout, side, padding, device)
            dropped = draw_drop_paths([(block.drop_path, ) for block in stage],
                                      x_BKTC)
            for block, divisors in zip(stage, dropped):
                x_BKTC = run_block(self.with_cp, self._run_block[i], block,
                                   x_BKTC, halo, divisors)
            if i in self.out_indices:
                outs.append(_norm(getattr(self, f'norm{i}'), x_BKTC))
            else:
                outs.append(x_BKTC)
        return outs

    def check_masked(self) -> None:
        """Refuse options whose masked forward is not defined."""
        last = self.num_stages - 1
        check_last_stage(self.out_indices, last)
        norm = getattr(self, f'norm{last}')
        if not isinstance(norm, LayerNorm2d):
            raise ValueError(
                "expected norm_cfg of type 'LN2d' for a masked forward, got "
                f'{type(norm).__name__}, whose statistics would mix tokens')
