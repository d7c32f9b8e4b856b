# Copyright (c) greenmim authors. All rights reserved.
"""What all backbones share for computing visible mask units only."""
from .backbone import (CompileBlocks, Compiled, Mask, PartlyFrozen,
                       StageOutputs, VisibleBackbone, check_last_stage,
                       checkpointed, image_channels, run_block)
from .drop_path import Divisors, draw_drop_paths, drop
from .pyramid import Pyramid, arch_settings
from .tokens import (check_in_units, conv_in_units, depthwise_tokens,
                     ffn_tokens, linear_tokens, norm_tokens, tokens_to_map,
                     visible_patch_embed, visible_patch_merging,
                     visible_positions, visible_reduced_attention)
from .windows import index_windows, window_attention

__all__ = [
    'CompileBlocks', 'Compiled', 'Divisors', 'Mask', 'PartlyFrozen', 'Pyramid',
    'StageOutputs', 'VisibleBackbone', 'arch_settings', 'check_in_units',
    'check_last_stage', 'checkpointed', 'conv_in_units', 'depthwise_tokens',
    'draw_drop_paths', 'drop', 'ffn_tokens', 'image_channels', 'index_windows',
    'linear_tokens', 'norm_tokens', 'run_block', 'tokens_to_map',
    'visible_patch_embed', 'visible_patch_merging', 'visible_positions',
    'visible_reduced_attention', 'window_attention'
]
