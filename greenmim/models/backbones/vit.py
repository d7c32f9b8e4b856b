# Copyright (c) greenmim authors. All rights reserved.
"""Vision Transformer that computes visible mask units only.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from typing import Any, Optional, Tuple

import torch
from mmcv.cnn.bricks.transformer import FFN
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from greenmim.ops import MaskPlan, patches_of_units, sincos_positions
from greenmim.registry import MODELS
from ..visible import (CompileBlocks, Compiled, Divisors, StageOutputs,
                       VisibleBackbone, check_in_units, checkpointed,
                       draw_drop_paths, drop, ffn_tokens, run_block,
                       visible_patch_embed, visible_positions)


def run_layer(layer: Any, x_BNC: Tensor, divisors: Divisors) -> Tensor:
    """Run a layer on the class token, if any, and the visible tokens."""
    attn = layer.attn
    B, N, C = x_BNC.shape
    qkv = attn.qkv(layer.ln1(x_BNC)).view(B, N, 3, attn.num_heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(
        q, k, v, dropout_p=attn.attn_drop if attn.training else 0.)
    out = attn.proj(out.transpose(1, 2).reshape(B, N, C))
    x_BNC = x_BNC + drop(attn.gamma1(attn.proj_drop(out)), divisors[0])
    if not isinstance(layer.ffn, FFN):  # has no stochastic depth
        return layer.ffn(layer.ln2(x_BNC), identity=x_BNC)
    return x_BNC + drop(ffn_tokens(layer.ffn, layer.ln2(x_BNC)), divisors[1])


@MODELS.register_module()
class GreenMIMVisionTransformer(VisibleBackbone, VisionTransformer):
    """Vision Transformer that drops masked units, as MAE does.

    Without a mask it is MMPretrain's ``VisionTransformer``, whose parameters,
    names and shapes it has. With a mask the visible tokens of an image attend
    to each other, and to the class token where there is one, as in `Masked
    Autoencoders Are Scalable Vision Learners
    <https://arxiv.org/abs/2111.06377>`_.

    A stage is a layer of ``out_indices``, which must hold the last. The class
    token is not among the tokens of a stage: :meth:`forward_stages` returns
    it, after the final norm, as ``class_token`` of the list.

    Args:
        unit_size (int, optional): Side of a mask unit in pixels, a multiple
            of the patch size. A unit of several patches has as many tokens.
            Defaults to None, the patch size.
        fixed_positions (bool): Take MAE's fixed sine-cosine positions, and
            draw the class token at random, where the parent learns positions
            from a random start. Defaults to False.
        with_cp (bool): Checkpoint the layers, with and without a mask, which
            saves memory for a second forward. Defaults to False.
        compile_blocks (bool | str): Compile the layers of the masked forward
            by ``torch.compile``, as one function; a string is its mode.
            Defaults to False.
        **kwargs: Other arguments of ``mmpretrain.VisionTransformer``.

    Raises:
        ValueError: If the mask unit does not hold whole patches.
    """

    def __init__(self,
                 *args: Any,
                 unit_size: Optional[int] = None,
                 fixed_positions: bool = False,
                 with_cp: bool = False,
                 compile_blocks: CompileBlocks = False,
                 **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.patch_size: int = self.patch_embed.projection.kernel_size[0]
        self._unit_size = unit_size or self.patch_size
        if self._unit_size % self.patch_size:
            raise ValueError(
                'expected a unit_size that is a multiple of the patch size '
                f'{self.patch_size}, got {unit_size}')
        self.fixed_positions = fixed_positions
        if fixed_positions:
            self.pos_embed.requires_grad = False
            self._fix_positions()
        self.with_cp = with_cp
        self._run_layer = Compiled(run_layer, compile_blocks)

    def init_weights(self) -> None:
        """Initialise as the parent does, except for fixed positions."""
        super().init_weights()
        cfg = self.init_cfg
        pretrained = isinstance(cfg, dict) and cfg['type'] == 'Pretrained'
        if self.fixed_positions and not pretrained:
            self._fix_positions()

    @torch.no_grad()
    def _fix_positions(self) -> None:
        """Sine and cosine for the patches, zero for the class token.

        The class token itself must then differ from zero, or all its channels
        would be alike.
        """
        if self.embed_dims % 4:
            raise ValueError('expected embed_dims to be a multiple of 4, '
                             'which fixed_positions need, got '
                             f'{self.embed_dims}')
        embed = self.pos_embed
        nn.init.zeros_(embed)
        embed[0, self.num_extra_tokens:] = sincos_positions(
            tuple(self.patch_resolution), self.embed_dims, embed.dtype,
            embed.device)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=.02)

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels."""
        return self._unit_size

    @property
    def reads_map_size(self) -> bool:
        """Whether positions are resized to the map."""
        return True

    def forward_dense(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Feature maps (B, C, H, W) of unmasked images."""
        if not self.with_cp:
            return super().forward_dense(x)
        with checkpointed(self.layers):
            return super().forward_dense(x)

    def forward_visible(self, images_BCHW: Tensor,
                        plan: MaskPlan) -> StageOutputs:
        """The tokens of the layers in ``out_indices``, (B, K, T, C).

        The last have passed the final norm.
        """
        grid = plan.layout.grid
        units = plan.layout.units.to(images_BCHW.device, non_blocking=True)
        side = self.unit_size // self.patch_size
        embed = resize_pos_embed(self.pos_embed, self.patch_resolution,
                                 (grid[0] * side, grid[1] * side),
                                 self.interpolate_mode, self.num_extra_tokens)
        extra = self.num_extra_tokens

        patches = patches_of_units(images_BCHW, units, self.unit_size,
                                   self.patch_size)
        x = visible_patch_embed(self.patch_embed, patches)
        x = x + visible_positions(embed[:, extra:], units, grid)
        shape = x.shape  # (B, K, T, C)
        # The layers take all tokens of an image, after the class token.
        x = x.flatten(1, 2)
        if extra:
            class_token = self.cls_token + embed[:, :extra]
            x = torch.cat([class_token.expand(len(x), -1, -1), x], dim=1)
        x = self.pre_norm(self.drop_after_pos(x))

        outs = StageOutputs()
        dropped = draw_drop_paths(
            [(layer.attn.out_drop,
              getattr(layer.ffn, 'dropout_layer', nn.Identity()))
             for layer in self.layers], x)
        for i, (layer, divisors) in enumerate(zip(self.layers, dropped)):
            x = run_block(self.with_cp, self._run_layer, layer, x, divisors)
            if i == self.num_layers - 1 and self.final_norm:
                x = self.ln1(x)
            if i in self.out_indices:
                outs.append(x[:, extra:].reshape(shape))
        outs.class_token = x[:, 0] if extra else None
        return outs

    def check_masked(self) -> None:
        """Refuse layers that read beyond a mask unit."""
        if self.num_layers - 1 not in self.out_indices:
            raise ValueError('expected the last layer in out_indices, got '
                             f'out_indices={tuple(self.out_indices)}')
        check_in_units(self.patch_embed.projection, self.unit_size)
