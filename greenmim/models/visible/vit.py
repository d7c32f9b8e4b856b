# Copyright (c) greenmim authors. All rights reserved.
import torch.utils.checkpoint as cp
from mmpretrain.models.backbones.vision_transformer import \
    TransformerEncoderLayer
from torch import Tensor


class CheckpointedLayer(TransformerEncoderLayer):
    """MMPretrain's layer, computed again in the backward."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as the input, (B, N, C)."""
        if not x.requires_grad:
            return super().forward(x)
        return cp.checkpoint(super().forward, x, use_reentrant=False)
