# Copyright (c) greenmim authors. All rights reserved.
"""What the next person needs to know of a pre-trained backbone."""
from typing import Any, Dict, List, Optional

from .recorded_config import read_recorded, read_value

UNKNOWN = 'not recorded'
# The mean and standard deviation of ImageNet, which MMPretrain assumes.
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def training_of(meta: Dict[str, Any]) -> Dict[str, Any]:
    """What a checkpoint records of its pre-training.

    Args:
        meta: The ``meta`` of a checkpoint of MMEngine.

    Returns:
        dict: ``mask_ratio``, ``unit_size``, ``target``, ``data``,
        ``iterations``, ``epochs`` and ``started_from``, as far as they are
        recorded; empty if the file has no config.
    """
    text = meta.get('cfg')
    model = read_recorded(text, 'model')
    loader = read_recorded(text, 'train_dataloader')
    if not model or not loader:
        return {}
    head = _dict(model.get('head'))
    target = _dict(head.get('target')).get('type')
    if target is None and head:
        target = 'normalised pixels' if head.get('norm_pix') else 'pixels'
    dataset = _dict(loader.get('dataset'))
    by_epoch = read_recorded(text, 'train_cfg').get('by_epoch', True)
    found = dict(
        algorithm=model.get('type'),
        mask_ratio=model.get('mask_ratio'),
        unit_size=head.get('unit_size', 32) if head else None,
        target=target,
        data=dataset.get('data_root') or dataset.get('type'),
        iterations=meta.get('iter'),
        epochs=meta.get('epoch') if by_epoch else None,
        started_from=read_value(text, 'load_from'))
    return {name: value for name, value in found.items() if value is not None}


def card_of(images: Dict[str, Any],
            img_size: Any,
            training: Dict[str, Any],
            licence: Optional[str] = None) -> Dict[str, Any]:
    """The model card of an export or import, of plain values.

    Args:
        images: How images were loaded and normalised, see
            :class:`greenmim.weights.Source`.
        img_size: Size of the images; None if not recorded.
        training: As :func:`training_of` returns it.
        licence: That of imported weights.
    """
    preprocessor = _dict(images.get('preprocessor'))
    mean, std = preprocessor.get('mean'), preprocessor.get('std')
    normalisation: Dict[str, Any] = dict(
        mean=_numbers(mean) or MEAN,
        std=_numbers(std) or STD,
        channel_order='RGB' if preprocessor.get('to_rgb', True) else 'BGR',
        value_range=[0, 255])
    if not mean:
        normalisation['assumed'] = 'that of ImageNet, since none is recorded'
    if len(normalisation['mean']) != 3:
        normalisation['channel_order'] = 'as in the files'
    crop = _dict(images.get('crop'))
    return dict(
        normalisation=normalisation,
        image_size=crop.get('scale') or crop.get('crop_size') or img_size
        or UNKNOWN,
        training=training or UNKNOWN,
        licence=licence or UNKNOWN)


def size_in(card: Dict[str, Any], other: Any) -> List[int]:
    """Height and width of the images, ``other`` where not recorded."""
    size = card['image_size']
    size = other if size == UNKNOWN else size
    return [size, size] if isinstance(size, int) else list(size)


def _dict(value: Any) -> Dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _numbers(value: Any) -> List[float]:
    return list(value) if isinstance(value, (list, tuple)) else []
