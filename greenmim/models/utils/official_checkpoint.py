# Copyright (c) greenmim authors. All rights reserved.
"""The GreenMIM authors' Swin checkpoints in this project's names."""
import re
from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor

from greenmim.ops import merge_permutation, sincos_positions

# (pattern of the authors' key, ours); the first that matches is taken.
_BLOCK = r'encoder\.layers\.(\d+)\.blocks\.(\d+)\.'
_DECODER_BLOCK = r'decoder_blocks\.(\d+)\.'
_RENAMES = (
    (r'encoder\.patch_embed\.proj\.', r'backbone.patch_embed.projection.'),
    (r'encoder\.patch_embed\.norm\.', r'backbone.patch_embed.norm.'),
    (_BLOCK + r'attn\.', r'backbone.stages.\1.blocks.\2.attn.w_msa.'),
    (_BLOCK + r'mlp\.fc1\.', r'backbone.stages.\1.blocks.\2.ffn.layers.0.0.'),
    (_BLOCK + r'mlp\.fc2\.', r'backbone.stages.\1.blocks.\2.ffn.layers.1.'),
    (_BLOCK + r'norm', r'backbone.stages.\1.blocks.\2.norm'),
    (r'encoder\.layers\.(\d+)\.downsample\.',
     r'backbone.stages.\1.downsample.'),
    (r'encoder\.norm\.', r'backbone.norm{last_stage}.'),
    (_DECODER_BLOCK + r'attn\.', r'neck.decoder_blocks.\1.attn.'),
    (_DECODER_BLOCK + r'mlp\.fc1\.',
     r'neck.decoder_blocks.\1.ffn.layers.0.0.'),
    (_DECODER_BLOCK + r'mlp\.fc2\.', r'neck.decoder_blocks.\1.ffn.layers.1.'),
    (_DECODER_BLOCK + r'norm', r'neck.decoder_blocks.\1.ln'),
    (r'(decoder_(?:embed|norm|pred)\.|mask_token$)', r'neck.\1'),
)


def convert_official_state_dict(
        state_dict: Dict[str, Tensor],
        merge_order: str) -> Tuple[Dict[str, Tensor], List[str]]:
    """Rename the authors' tensors and reorder the merged channels.

    The fixed ``decoder_pos_embed`` is dropped: our decoder computes it.

    Args:
        state_dict (dict[str, Tensor]): What the authors' file holds under
            ``model``.
        merge_order (str): The order of the file's patch-merging channels,
            see :mod:`greenmim.ops.merge_order`.

    Returns:
        tuple[dict[str, Tensor], list[str]]: The tensors of a ``GreenMIM``
        model, with the prefixes ``backbone.`` and ``neck.``, and the names
        of the tensors that have no place in it.

    Raises:
        ValueError: If these are not the tensors of the authors' Swin, or the
            merge order is unknown.
    """
    blocks = [re.match(_BLOCK, key) for key in state_dict]
    stages = [int(match[1]) for match in blocks if match]
    if not stages or 'encoder.patch_embed.proj.weight' not in state_dict:
        raise ValueError(
            "expected the tensors of the GreenMIM authors' Swin, such as "
            "'encoder.patch_embed.proj.weight', got names such as "
            f'{list(state_dict)[:3]}')

    converted, leftover = {}, []
    for key, tensor in state_dict.items():
        if key == 'decoder_pos_embed' and _is_sincos(tensor):
            continue
        name = _rename(key, last_stage=max(stages))
        if name is None:
            leftover.append(key)
            continue
        if '.downsample.' in key:
            # Norm weight and bias (4C, ), reduction weight (2C, 4C).
            order = merge_permutation(tensor.shape[-1] // 4, merge_order)
            tensor = tensor[..., order]
        converted[name] = tensor
    return converted, leftover


def swin_settings(state_dict: Dict[str, Tensor]) -> dict:
    """Arguments of the ``GreenMIMSwinTransformer`` that converted tensors fit.

    In a stage whose window was shrunk to its map, the authors' table is that
    of the shrunk window, so windows are named stage by stage.

    Args:
        state_dict (dict[str, Tensor]): Converted tensors.

    Returns:
        dict: Plain numbers, lists and dicts.

    Raises:
        ValueError: If a tensor that tells a setting is missing.
    """
    pattern = r'backbone\.stages\.(\d+)\.blocks\.(\d+)\.'
    matches = [re.match(pattern, key) for key in state_dict]
    blocks = {(int(match[1]), int(match[2])) for match in matches if match}
    depths, num_heads, windows = [], [], []
    for stage in range(1 + max(stage for stage, _ in blocks)):
        depths.append(sum(of_stage == stage for of_stage, _ in blocks))
        table = _get(
            state_dict, f'backbone.stages.{stage}.blocks.0.attn.w_msa.'
            'relative_position_bias_table')
        num_heads.append(table.shape[1])
        windows.append((int(table.shape[0]**0.5) + 1) // 2)
    patches = _get(state_dict, 'backbone.patch_embed.projection.weight')
    embed_dims, in_channels, patch_size, _ = patches.shape
    return dict(
        arch=dict(embed_dims=embed_dims, depths=depths, num_heads=num_heads),
        in_channels=in_channels,
        patch_size=patch_size,
        stage_cfgs=[dict(block_cfgs=dict(window_size=w)) for w in windows])


def neck_settings(state_dict: Dict[str, Tensor]) -> dict:
    """Arguments of the ``GreenMIMNeck`` that converted tensors fit.

    The number of attention heads leaves no trace in the tensors.

    Args:
        state_dict (dict[str, Tensor]): Converted tensors.

    Returns:
        dict: Plain numbers.

    Raises:
        ValueError: If a tensor that tells a setting is missing.
    """
    embed = _get(state_dict, 'neck.decoder_embed.weight')
    pred = _get(state_dict, 'neck.decoder_pred.weight')
    return dict(
        in_channels=embed.shape[1],
        embed_dims=embed.shape[0],
        depth=sum(key.endswith('.ln1.weight') for key in state_dict),
        out_channels=pred.shape[0])


def _get(state_dict: Dict[str, Tensor], name: str) -> Tensor:
    if name not in state_dict:
        raise ValueError(f'expected a tensor {name}, found none')
    return state_dict[name]


def _rename(key: str, last_stage: int) -> Optional[str]:
    for pattern, ours in _RENAMES:
        if re.match(pattern, key):
            name = re.sub(pattern, ours, key, count=1)
            return name.format(last_stage=last_stage)
    return None


def _is_sincos(positions: Tensor) -> bool:
    """Whether (1, side * side, dims) values are those of our decoder."""
    side = int(positions.shape[1]**0.5)
    expected = sincos_positions((side, side), positions.shape[2],
                                positions.dtype, positions.device)
    return positions[0].shape == expected.shape and torch.allclose(
        positions[0], expected, rtol=0, atol=1e-5)
