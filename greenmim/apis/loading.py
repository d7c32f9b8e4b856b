# Copyright (c) greenmim authors. All rights reserved.
"""Load a pre-trained backbone, and what its images need."""
import inspect
from os import PathLike
from pathlib import Path
from typing import Any, Dict, Tuple, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from greenmim.datasets import LoadImage
from greenmim.models import backbones
from greenmim.registry import MODELS
from greenmim.weights import (SOURCES, Source, load_weights, model_card,
                              read_backbone, read_source)
from greenmim.weights.family import safe_arguments
from greenmim.weights.layouts import Tensors
from .runs import resolve

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def load(run: Union[str, PathLike]) -> nn.Module:
    """Load a pre-trained backbone, and print a line about it.

    ``backbone(images)`` returns a tuple of maps (B, C, H, W), usually that of
    the last stage alone; :func:`greenmim.preprocess` makes the images.

    Args:
        run (str | PathLike): The folder of a run, a checkpoint, or a file
            that ``greenmim export`` or ``greenmim import`` wrote.

    Returns:
        nn.Module: The backbone on the CPU, in evaluation mode. Its attribute
        ``card`` is the model card: normalisation, image size, training and
        licence.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not say which backbone it holds, or a
            tensor is missing, unexpected or of another shape.
    """
    settings, tensors, source = _read(run)
    backbone = MODELS.build(settings)
    load_weights(backbone, tensors, source.path, 'backbone', source.others)
    backbone.card = model_card(
        source,
        source.metadata.get('img_size') or settings.get('img_size'))
    return backbone.eval()


def describe(run: Union[str, PathLike]) -> Tuple[Dict[str, Any], Tensors]:
    """The config of a backbone that returns maps, and its tensors."""
    return _read(run)[:2]


def _read(run: Union[str, PathLike]) -> Tuple[Dict[str, Any], Tensors, Source]:
    """The same, and the content of the file.

    The config of a run's folder is trusted, what a file says is not.
    """
    config, checkpoint = resolve(run)
    source = read_source(checkpoint)
    init_default_scope('mmpretrain')
    if Path(run).expanduser().is_dir() and config is not None:
        settings = Config.fromfile(config).model.backbone.to_dict()
        settings['init_cfg'] = None
        return _with_maps(settings), source.backbone, source
    settings, tensors = _described(source, checkpoint)
    return _with_maps(settings), tensors, source


def _described(source: Source, path: Path) -> Tuple[Dict[str, Any], Tensors]:
    """Settings and tensors of a file that alone describes its backbone."""
    recorded = source.config or source.metadata.get('backbone') or {}
    kind = str(recorded.get('type', '')).split('.')[-1]
    if kind not in backbones.__all__:
        # An export, whose tensors tell their family.
        layout = source.metadata.get('layout', 'mmpretrain')
        found = read_backbone(source, SOURCES[layout])
        types = [] if found.family is None else [
            name for name in found.family.types if name.startswith('greenmim.')
        ]
        if not types:
            raise ValueError(
                f'expected a checkpoint of a backbone of greenmim, got {path};'
                ' name the folder of its run')
        return dict(found.settings, type=types[0]), found.tensors
    arguments = safe_arguments(getattr(backbones, kind), recorded)
    return dict(arguments, type=f'greenmim.{kind}'), source.backbone


# What makes a backbone return vectors, and the value that makes it maps.
VECTORS = dict(out_type='featmap', gap_before_final_norm=False)


def _with_maps(settings: Dict[str, Any]) -> Dict[str, Any]:
    """ViT and ConvNeXt return maps, as all others do."""
    cls = MODELS.get(settings['type'])
    arguments = {
        name
        for parent in cls.__mro__[:-1]
        for name in inspect.signature(parent).parameters
    }
    maps = {name: VECTORS[name] for name in VECTORS if name in arguments}
    return dict(settings, **maps)


class Preprocess:
    """From an image to what a backbone reads.

    The shorter side is resized to 8/7 of the size, and the centre is cropped
    and normalised as in the pre-training.

    Args:
        size (int): Side of the result in pixels.
        load (dict): Arguments of :class:`greenmim.datasets.LoadImage`.
        preprocessor (dict): Config of the data preprocessor.
    """

    def __init__(self, size: int, load: Dict[str, Any],
                 preprocessor: Dict[str, Any]) -> None:
        self.size = size
        self.options, self.config = load, preprocessor
        self.load = LoadImage(**load)
        self.channels: int = self.load.decoder.channels
        init_default_scope('mmpretrain')
        self.preprocessor = MODELS.build(preprocessor)

    def __call__(
            self, image: Union[str, PathLike, Image.Image,
                               np.ndarray]) -> Tensor:
        """Turn an image into a tensor (C, size, size).

        Args:
            image (str | PathLike | Image | ndarray): A file, or an image in
                RGB: an array is (H, W, C), or (H, W) for one channel, on the
                scale 0 to 255.
        """
        if isinstance(image, (str, PathLike)):
            array = self.load(dict(img_path=str(image)))['img']
        else:
            if isinstance(image, Image.Image):
                image = image.convert('L' if self.channels == 1 else 'RGB')
            array = np.asarray(image)
            if array.ndim == 3 and array.shape[-1] == 3:
                array = array[..., ::-1]  # BGR, as files are loaded
        return self.finish(array)

    def finish(self, array: np.ndarray) -> Tensor:
        """Resize, crop and normalise a loaded image."""
        if array.ndim == 2:
            array = array[..., None]
        image = torch.from_numpy(np.ascontiguousarray(array)).movedim(-1, 0)
        image = resize(image, [round(self.size * 8 / 7)],
                       InterpolationMode.BICUBIC)
        image = center_crop(image, [self.size])
        data = dict(inputs=[image[None]], data_samples=None)
        return self.preprocessor(data)['inputs'][0][0]


def preprocess(run: Union[str, PathLike]) -> Preprocess:
    """What turns images into those that a pre-trained backbone knows.

    Args:
        run (str | PathLike): As of :func:`load`.

    Returns:
        Preprocess: Called with a file or an image, it returns a tensor
        (C, H, W); stack several for ``backbone(images)``.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    source = read_source(resolve(run)[1])
    images = source.images
    crop = images.get('crop', {})
    size = crop.get(
        'scale',
        crop.get('crop_size')) or source.metadata.get('img_size') or 224
    load = {
        key: value
        for key, value in images.get('load', {}).items()
        if key not in ('type', 'min_side', 'backend_args')
    }
    preprocessor = dict(
        images.get('preprocessor') or dict(
            type='SelfSupDataPreprocessor', mean=MEAN, std=STD, to_rgb=True))
    return Preprocess(
        size if isinstance(size, int) else max(size), load, preprocessor)
