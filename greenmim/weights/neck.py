# Copyright (c) greenmim authors. All rights reserved.
"""The decoder in the GreenMIM authors' checkpoints."""
from typing import Tuple

from torch import Tensor

from greenmim.models import GreenMIMNeck
from greenmim.ops import sincos_positions
from .coverage import Coverage
from .layouts import Renames, Tensors, rename_all

RENAMES: Renames = (
    ('decoder_blocks.{k}.attn.', 'decoder_blocks.{k}.attn.'),
    ('decoder_blocks.{k}.mlp.fc1.', 'decoder_blocks.{k}.ffn.layers.0.0.'),
    ('decoder_blocks.{k}.mlp.fc2.', 'decoder_blocks.{k}.ffn.layers.1.'),
    ('decoder_blocks.{k}.norm', 'decoder_blocks.{k}.ln'),
    ('decoder_embed.', 'decoder_embed.'),
    ('decoder_norm.', 'decoder_norm.'),
    ('decoder_pred.', 'decoder_pred.'),
    ('mask_token', 'mask_token'),
)


def convert_neck(others: Tensors) -> Tuple[Tensors, Coverage]:
    """The tensors of a ``GreenMIMNeck``, without a prefix.

    The fixed ``decoder_pos_embed`` is dropped: our decoder computes it.

    Args:
        others (dict[str, Tensor]): All that the authors' file holds beside
            the encoder.

    Raises:
        ValueError: If a tensor that tells a setting is missing.
    """
    given = {
        name: tensor
        for name, tensor in others.items()
        if name != 'decoder_pos_embed' or not _is_sincos(tensor)
    }
    neck, homeless = rename_all(given, RENAMES, to_ours=True)
    expected = GreenMIMNeck(num_heads=1, **neck_settings(neck)).state_dict()
    return neck, Coverage.compare('neck', expected, neck, homeless)


def neck_settings(tensors: Tensors) -> dict:
    """Arguments of the ``GreenMIMNeck`` that tensors in our names fit.

    The number of attention heads leaves no trace in the tensors.

    Raises:
        ValueError: If a tensor that tells a setting is missing.
    """
    for name in ('decoder_embed.weight', 'decoder_pred.weight'):
        if name not in tensors or tensors[name].ndim != 2:
            raise ValueError(f'expected a tensor neck.{name} of two '
                             'dimensions, found none')
    embed, pred = tensors['decoder_embed.weight'], tensors[
        'decoder_pred.weight']
    blocks = {
        name.split('.')[1]
        for name in tensors if name.startswith('decoder_blocks.')
    }
    return dict(
        in_channels=embed.shape[1],
        embed_dims=embed.shape[0],
        depth=len(blocks),
        out_channels=pred.shape[0])


def _is_sincos(positions: Tensor) -> bool:
    """Whether (1, side * side, dims) values are those of our decoder."""
    if positions.ndim != 3:
        return False
    side = int(positions.shape[1]**0.5)
    expected = sincos_positions((side, side), positions.shape[2],
                                positions.dtype, positions.device)
    return positions[0].shape == expected.shape and bool(
        (positions[0] - expected).abs().max() <= 1e-5)
