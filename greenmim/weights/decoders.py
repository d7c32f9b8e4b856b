# Copyright (c) greenmim authors. All rights reserved.
"""Converts the decoder and the mask token, or the classifier.

Pre-training continues with the former in the algorithm's names; the latter
becomes the head of an ``ImageClassifier``.
"""
from typing import Any, Callable, Dict, Tuple

import torch
from torch import Tensor, nn

from greenmim.models import GreenMIMNeck, LinearNeck
from greenmim.ops import sincos_positions
from .convert import Backbone
from .coverage import Coverage
from .family import shape_of
from .layouts import Renames, Tensors, join_attention, rename_all
from .reading import Source

Parts = Tuple[Tensors, Tuple[Coverage, ...]]

# Names of the GreenMIM authors, and ours of a ``GreenMIMNeck``.
_MAE: Renames = (
    ('decoder_blocks.{k}.attn.', 'decoder_blocks.{k}.attn.'),
    ('decoder_blocks.{k}.mlp.fc1.', 'decoder_blocks.{k}.ffn.layers.0.0.'),
    ('decoder_blocks.{k}.mlp.fc2.', 'decoder_blocks.{k}.ffn.layers.1.'),
    ('decoder_blocks.{k}.norm', 'decoder_blocks.{k}.ln'),
    ('decoder_embed.', 'decoder_embed.'),
    ('decoder_norm.', 'decoder_norm.'),
    ('decoder_pred.', 'decoder_pred.'),
    ('mask_token', 'mask_token'),
)

# Names of MAE in transformers; those of the attention are joined.
_VIT_MAE: Renames = (
    *(('decoder.decoder_layers.{k}.' + theirs, 'decoder_blocks.{k}.' + ours)
      for theirs, ours in (
          ('attention.attention.query.', 'attn.q.'),
          ('attention.attention.key.', 'attn.k.'),
          ('attention.attention.value.', 'attn.v.'),
          ('attention.output.dense.', 'attn.proj.'),
          ('intermediate.dense.', 'mlp.fc1.'),
          ('output.dense.', 'mlp.fc2.'),
          ('layernorm_before.', 'norm1.'),
          ('layernorm_after.', 'norm2.'),
      )),
    ('decoder.', ''),
)  # yapf: disable


def convert_decoder_or_head(source_name: str, source: Source,
                            backbone: Backbone) -> Parts:
    """Convert what the file holds besides the backbone.

    Args:
        source_name (str): One of ``greenmim.weights.SOURCES``.
        source (Source): The content of the file.
        backbone (Backbone): Its backbone.

    Returns:
        tuple[dict[str, Tensor], tuple[Coverage]]: The tensors and the checks
        that they are complete; both empty if the file has neither decoder nor
        classifier, or their names are unknown.

    Raises:
        ValueError: If a tensor is missing that determines a setting.
    """
    for prefix in _CLASSIFIERS.get(source_name, ()):
        if f'{prefix}weight' in source.others:
            return _classifier(source, backbone, prefix)
    convert = _DECODERS.get(source_name)
    if convert is None or not any(
            name.startswith('decoder')
            for name in (*source.others, *backbone.left_out)):
        return {}, ()
    return convert(source, backbone)


def convert_neck(others: Tensors, **options: Any) -> Parts:
    """Convert the decoder of GreenMIM or FastMIM to a ``GreenMIMNeck``.

    The fixed ``decoder_pos_embed`` is dropped, since our decoder computes it.

    Args:
        others (dict[str, Tensor]): The file's tensors besides the encoder.
        **options: Options of the neck.
    """
    given = {
        name: tensor
        for name, tensor in others.items() if name != 'decoder_pos_embed'
        or options.get('pos_embed') is False or not _is_sincos(tensor)
    }
    neck, unexpected = rename_all(given, _MAE, to_ours=True)
    embed_dims, in_channels = shape_of(neck, 'decoder_embed.weight', 2)
    out_channels, _ = shape_of(neck, 'decoder_pred.weight', 2)
    depth = len({
        name.split('.')[1]
        for name in neck if name.startswith('decoder_blocks.')
    })
    # The tensors do not depend on the number of heads.
    expected = GreenMIMNeck(
        in_channels,
        embed_dims,
        depth,
        num_heads=1,
        out_channels=out_channels,
        **options).state_dict()
    return _prefixed('neck', neck), (Coverage.compare('neck', expected, neck,
                                                      unexpected), )


def _greenmim(source: Source, backbone: Backbone) -> Parts:
    return convert_neck(source.others)


def _fastmim(source: Source, backbone: Backbone) -> Parts:
    """A decoder without positions, and a mask token of pixels."""
    token, others = _take_token(source.others)
    neck, coverages = convert_neck(others, pos_embed=False, mask_token=False)
    shape = (1, backbone.settings['in_channels'], 1, 1)
    return {**neck, **token}, (*coverages, _check_token(token, shape))


def _mae(source: Source, backbone: Backbone) -> Parts:
    """A decoder that reads the class token too, beside the encoder."""
    tensors = {**source.backbone, **source.others}
    return convert_neck({
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith('decoder') or name == 'mask_token'
    })


def _transformers(source: Source, backbone: Backbone) -> Parts:
    """That of MAE, or the linear one of SimMIM's descendants."""
    if 'decoder.decoder_embed.weight' in source.others:
        theirs, _ = rename_all(source.others, _VIT_MAE, to_ours=True)
        return convert_neck(join_attention(theirs, 'qkv'))
    name = 'embeddings.mask_token'
    given = {'mask_token': source.backbone[name]} if (
        name in source.backbone) else {}  # yapf: disable
    return _linear(source.others, given, backbone)


def _simmim(source: Source, backbone: Backbone) -> Parts:
    token, _ = _take_token(source.backbone)
    return _linear(source.others, token, backbone)


def _linear(others: Tensors, token: Tensors, backbone: Backbone) -> Parts:
    """A linear decoder, and a mask token among the patch embeddings.

    The decoder predicts a unit of Swin or a patch, a quarter of a unit, of
    ViT. Its outputs have the order (channel, pixel), ours (pixel, channel).
    """
    neck, unexpected = rename_all(
        others, (('decoder.0.', 'linear.'), ), to_ours=True)
    neck = {
        name: _channel_last(tensor, backbone.settings['in_channels'])
        for name, tensor in neck.items()
    }
    values = max(map(len, neck.values()), default=0)
    decoder = LinearNeck(_latent_channels(backbone), values)
    return {**_prefixed('neck', neck), **token}, (
        Coverage.compare('neck', decoder.state_dict(), neck, unexpected),
        _check_token(token, (1, 1, _embed_dims(backbone))))  # yapf: disable


def _classifier(source: Source, backbone: Backbone, prefix: str) -> Parts:
    """The linear layer of a fine-tuned model."""
    given = {
        name: tensor
        for name, tensor in source.others.items()
        if name not in backbone.used_outside
    }
    classes = len(given[f'{prefix}weight'])
    layer = nn.Linear(_latent_channels(backbone), classes)
    head, unexpected = rename_all(given, ((prefix, 'fc.'), ), to_ours=True)
    expected = _prefixed('fc', layer.state_dict())
    return _prefixed('head', head), (Coverage.compare('head', expected, head,
                                                      unexpected), )


def _latent_channels(backbone: Backbone) -> int:
    """Channels of the last stage, or of all layers of a ViT."""
    arch = backbone.settings['arch']
    dims = arch.get('channels', arch.get('embed_dims'))
    if isinstance(dims, list):
        return dims[-1]
    # Swin doubles them from stage to stage.
    stages = arch['num_heads']
    return dims * 2**(len(stages) - 1) if isinstance(stages, list) else dims


def _embed_dims(backbone: Backbone) -> int:
    return len(backbone.tensors['patch_embed.projection.weight'])


def _channel_last(tensor: Tensor, channels: int) -> Tensor:
    """Reorder the first dimension from (channel, pixel) to (pixel, channel).

    The 1x1 kernel of a convolution is flattened away.
    """
    if len(tensor) % channels:
        return tensor
    order = torch.arange(len(tensor)).view(channels, -1).t().flatten()
    return tensor[order].flatten(1) if tensor.ndim > 1 else tensor[order]


def _is_sincos(positions: Tensor) -> bool:
    """Whether positions (1, side * side, dims) equal our decoder's."""
    if positions.ndim != 3:
        return False
    if not positions[:, :1].any():  # of MAE's class token
        positions = positions[:, 1:]
    side = int(positions.shape[1]**0.5)
    expected = sincos_positions((side, side), positions.shape[2],
                                positions.dtype, positions.device)
    return positions[0].shape == expected.shape and bool(
        (positions[0] - expected).abs().max() <= 1e-5)


def _prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {f'{prefix}.{name}': tensor for name, tensor in tensors.items()}


def _take_token(tensors: Tensors) -> Tuple[Tensors, Tensors]:
    """The mask token, and all other tensors."""
    others = {k: v for k, v in tensors.items() if k != 'mask_token'}
    return {k: tensors[k] for k in tensors.keys() - others.keys()}, others


def _check_token(token: Tensors, shape: Tuple[int, ...]) -> Coverage:
    expected = dict(mask_token=torch.zeros(shape))
    return Coverage.compare('algorithm', expected, token)


# The prefixes of classifiers in the layouts whose names are known.
_CLASSIFIERS: Dict[str, Tuple[str, ...]] = {
    'timm': ('head.fc.', 'head.'),
    'transformers': ('classifier.', ),
    **{name: ('head.', ) for name in (
        'convnext', 'fastmim', 'fcmae', 'mae', 'simmim', 'swin', 'twins')}
}  # yapf: disable
_DECODERS: Dict[str, Callable[[Source, Backbone], Parts]] = {
    'greenmim': _greenmim,
    'greenmim-2022': _greenmim,
    'fastmim': _fastmim,
    'mae': _mae,
    'simmim': _simmim,
    'transformers': _transformers,
}
