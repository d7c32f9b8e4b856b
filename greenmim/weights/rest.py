# Copyright (c) greenmim authors. All rights reserved.
"""What a checkpoint holds beside its backbone.

Decoder and mask token, in the names of the algorithm that goes on training;
or the classifier of a fine-tuned one, as ``ImageClassifier`` has it.
"""
import re
from typing import Callable, Dict, Tuple

import torch
from torch import Tensor, nn

from greenmim.models import GreenMIMNeck, LinearNeck
from .convert import Backbone
from .coverage import Coverage
from .layouts import Tensors, rename_all
from .neck import RENAMES, convert_neck, neck_settings
from .reading import Source

Rest = Tuple[Tensors, Tuple[Coverage, ...]]


def convert_rest(source_name: str, source: Source, backbone: Backbone) -> Rest:
    """The tensors beside the backbone, and whether they are complete.

    Args:
        source_name (str): One of ``greenmim.weights.SOURCES``.
        source (Source): The file.
        backbone (Backbone): The backbone in it.

    Returns:
        tuple[dict[str, Tensor], tuple[Coverage]]: None where the file has
        neither, or their names are not known.

    Raises:
        ValueError: If a tensor that tells a setting is missing.
    """
    if source_name in _CLASSIFIERS and 'head.weight' in source.others:
        return _classifier(source, backbone)
    convert = _CONVERTERS.get(source_name)
    if convert is None or not any(
            name.startswith('decoder') for name in source.others):
        return {}, ()
    return convert(source, backbone)


def _greenmim(source: Source, backbone: Backbone) -> Rest:
    neck, coverage = convert_neck(source.others)
    return _in_neck(neck), (coverage, )


def _fastmim(source: Source, backbone: Backbone) -> Rest:
    """A decoder without positions, and a token of pixels."""
    token = {k: v for k, v in source.others.items() if k == 'mask_token'}
    others = {k: v for k, v in source.others.items() if k not in token}
    neck, homeless = rename_all(others, RENAMES, to_ours=True)
    decoder = GreenMIMNeck(
        num_heads=1, pos_embed=False, mask_token=False, **neck_settings(neck))
    expected = torch.zeros(1, backbone.settings['in_channels'], 1, 1)
    return {**_in_neck(neck), **token}, (
        Coverage.compare('neck', decoder.state_dict(), neck, homeless),
        _of_token(expected, token))  # yapf: disable


def _simmim(source: Source, backbone: Backbone) -> Rest:
    """A linear decoder, and a token among the patch embeddings.

    Of a token's pixels the channel is the slowest there, as a pixel shuffle
    wants it, and the fastest here. A token is a unit of Swin, and a patch, a
    quarter of a unit, of ViT.
    """
    names = {
        'decoder.0.weight': 'linear.weight',
        'decoder.0.bias': 'linear.bias'
    }
    neck = {
        names[name]: _channel_last(tensor, backbone.settings['in_channels'])
        for name, tensor in source.others.items() if name in names
    }
    homeless = tuple(name for name in source.others if name not in names)
    token = {k: v for k, v in source.backbone.items() if k == 'mask_token'}
    dims = _embed_dims(backbone)
    values = max(map(len, neck.values()), default=0)
    decoder = LinearNeck(_latent_channels(backbone), values)
    return {**_in_neck(neck), **token}, (
        Coverage.compare('neck', decoder.state_dict(), neck, homeless),
        _of_token(torch.zeros(1, 1, dims), token))  # yapf: disable


def _classifier(source: Source, backbone: Backbone) -> Rest:
    """The linear layer of a fine-tuned model."""
    classes = len(source.others['head.weight'])
    fc = nn.Linear(_latent_channels(backbone), classes)
    head, homeless = rename_all(
        source.others, (('head.', 'fc.'), ), to_ours=True)
    expected = {f'fc.{name}': t for name, t in fc.state_dict().items()}
    return {
        f'head.{name}': tensor
        for name, tensor in head.items()
    }, (Coverage.compare('head', expected, head, homeless), )


def _latent_channels(backbone: Backbone) -> int:
    """Channels of the last norm; of a ViT those of all layers."""
    norms = [
        len(tensor) for name, tensor in backbone.tensors.items()
        if re.match(r'norm\d+\.weight', name)
    ]
    return norms[-1] if norms else _embed_dims(backbone)


def _embed_dims(backbone: Backbone) -> int:
    return len(backbone.tensors['patch_embed.projection.weight'])


def _channel_last(tensor: Tensor, channels: int) -> Tensor:
    """Order a token's values (channel, pixel) as (pixel, channel)."""
    if len(tensor) % channels:
        return tensor
    order = torch.arange(len(tensor)).view(channels, -1).t().flatten()
    return tensor[order].flatten(1) if tensor.ndim > 1 else tensor[order]


def _in_neck(tensors: Tensors) -> Tensors:
    return {f'neck.{name}': tensor for name, tensor in tensors.items()}


def _of_token(expected: Tensor, given: Tensors) -> Coverage:
    return Coverage.compare('algorithm', {'mask_token': expected}, given)


_CLASSIFIERS = ('fastmim', 'simmim', 'swin', 'timm')
_CONVERTERS: Dict[str, Callable[[Source, Backbone], Rest]] = {
    'greenmim': _greenmim,
    'greenmim-2022': _greenmim,
    'fastmim': _fastmim,
    'simmim': _simmim,
}
