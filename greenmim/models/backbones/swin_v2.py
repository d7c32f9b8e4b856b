# Copyright (c) greenmim authors. All rights reserved.
"""Swin Transformer V2 that computes visible mask units only."""
from typing import Any, Tuple

from mmpretrain.models import SwinTransformerV2
from mmpretrain.models.utils import WindowMSAV2

from greenmim.registry import MODELS
from ..visible import (VisibleSwin, cosine_before_attention,
                       post_norm_after_attention)


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
        compile_blocks (bool): Compile the blocks of the masked forward by
            ``torch.compile``, which fuses norms, biases, activations and
            residuals. Masks that hide the same number of units share the
            compiled code. Defaults to False.
        **kwargs: Other arguments of ``mmpretrain.SwinTransformerV2``.
    """

    msa_type = WindowMSAV2

    def __init__(self,
                 *args: Any,
                 attn_backend: str = 'auto',
                 compile_blocks: bool = False,
                 **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.set_runner(cosine_before_attention, post_norm_after_attention,
                        attn_backend, compile_blocks)

    def merging_before(self, stage: int) -> Any:
        """The patch merging in front of a stage, None where there is none."""
        return self.stages[stage].downsample

    def get_layer_depth(self,
                        param_name: str,
                        prefix: str = '') -> Tuple[int, int]:
        """The depth of a parameter, for layer-wise learning rates.

        Patch merging counts with the block before it, as in Swin V1.

        Args:
            param_name (str): The name of the parameter.
            prefix (str): The prefix of the backbone's parameters. Defaults
                to an empty string.

        Returns:
            tuple[int, int]: The depth, 0 for the patch embedding, and the
            number of depths, of which the last is the norms' and the head's.
        """
        num_depths = sum(self.depths) + 2
        parts = param_name[len(prefix):].split('.')
        if not param_name.startswith(prefix):
            depth = num_depths - 1
        elif parts[0] in ('patch_embed', 'absolute_pos_embed'):
            depth = 0
        elif parts[0] == 'stages':
            depth = sum(self.depths[:int(parts[1])])
            if parts[2] == 'blocks':
                depth += int(parts[3]) + 1
        else:
            depth = num_depths - 1
        return depth, num_depths

    def _delete_reinit_params(self, state_dict: dict, prefix: str, *args:
                              Any) -> None:
        """Keep the buffers of this window, whatever the checkpoint's.

        The parent deletes them from the checkpoint and then misses them.
        """
        for name, buffer in self.named_buffers():
            if 'relative_' in name:
                state_dict[prefix + name] = buffer
