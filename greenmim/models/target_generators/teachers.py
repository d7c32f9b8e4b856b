# Copyright (c) greenmim authors. All rights reserved.
"""Backbones of other libraries as teachers.

Each is built by its library from files on the disk, so that all weights that
the library reads are teachers; nothing is downloaded. The letters of shapes
are defined in :mod:`greenmim.ops`.
"""
from importlib import import_module
from pathlib import Path
from typing import Any, List

from torch import Tensor, nn

from greenmim.registry import MODELS


class Teacher(nn.Module):
    """A frozen backbone that knows what images it needs.

    ``forward`` turns images (B, 3, H, W), RGB and normalised by :attr:`mean`
    and :attr:`std`, into a feature map (B, C, H / stride, W / stride).
    """

    mean: List[float]
    """Mean of each channel, red first, on the scale 0 to 255."""

    std: List[float]
    """Standard deviation of each channel, on the scale 0 to 255."""

    stride: int
    """Side of a feature in pixels."""

    def _set_normalisation(self, mean: Any, std: Any) -> None:
        """Take the values of a library, on the scale 0 to 1."""
        self.mean = [255. * value for value in mean]
        self.std = [255. * value for value in std]


@MODELS.register_module()
class TimmTeacher(Teacher):
    """A backbone of timm.

    Args:
        model_name (str): Its name in timm, for example
            ``'vit_small_patch14_dinov2'``.
        checkpoint (str): The file of its weights: those that timm publishes,
            or the authors' where timm reads them.
        **kwargs: More arguments of ``timm.create_model``.

    Raises:
        ImportError: If timm is not installed.
        FileNotFoundError: If there is no such file.
    """

    def __init__(self, model_name: str, checkpoint: str,
                 **kwargs: Any) -> None:
        super().__init__()
        timm = _library('timm')
        file = Path(checkpoint).expanduser()
        if not file.is_file():
            raise FileNotFoundError(
                f'expected the weights of {model_name} in a file, but there '
                f'is no file {file}; download it first')
        kwargs = dict(
            kwargs,
            pretrained=True,
            num_classes=0,
            pretrained_cfg_overlay=dict(file=str(file)))
        try:  # a Vision Transformer for images of any size
            self.model = timm.create_model(
                model_name, dynamic_img_size=True, **kwargs)
        except TypeError:  # other networks have no such argument
            self.model = timm.create_model(model_name, **kwargs)
        config = timm.data.resolve_model_data_config(self.model)
        self._set_normalisation(config['mean'], config['std'])
        self.stride = self.model.feature_info[-1]['reduction']

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) into the last feature map."""
        return self.model.forward_intermediates(
            images, indices=1, norm=True, intermediates_only=True)[-1]


@MODELS.register_module()
class TransformersTeacher(Teacher):
    """A backbone of Hugging Face transformers.

    Vision Transformers (ViT, DINOv2, DINOv3 and their like), whose last
    hidden states are a few tokens for the image and those of its patches in
    row-major order, and networks in stages, of convolutions or of windows
    (ResNet, ConvNeXt, Swin), whose first stage has stride 4.

    Args:
        folder (str): What ``save_pretrained`` writes: ``config.json``, the
            weights and ``preprocessor_config.json``.

    Raises:
        ImportError: If transformers is not installed.
        FileNotFoundError: If the folder lacks one of these files.
        ValueError: If weights are missing in them, or, when called, the
            network does not return a token for every patch.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        transformers = _library('transformers')
        path = Path(folder).expanduser()
        for name in 'config.json', 'preprocessor_config.json':
            if not (path / name).is_file():
                raise FileNotFoundError(
                    f'expected a folder that save_pretrained wrote, but there '
                    f'is no file {path / name}; save model and image '
                    'processor there')
        processor, _ = (
            transformers.ImageProcessingMixin.get_image_processor_dict(
                str(path)))
        self._set_normalisation(processor['image_mean'],
                                processor['image_std'])
        self.model, found = transformers.AutoModel.from_pretrained(
            str(path), local_files_only=True, output_loading_info=True)
        missing = [
            name for name in found['missing_keys'] if 'pooler' not in name
        ]
        if missing:
            raise ValueError(
                f'expected all weights of {type(self.model).__name__} in '
                f'{path}, but {len(missing)} are missing, {missing[0]} for '
                'example')
        config = self.model.config
        # Of networks in stages the patch size is the stride of the first.
        depths = getattr(config, 'depths', None)
        self.stride = 2**(1 + len(depths)) if depths else config.patch_size
        self._positions = dict()
        if config.model_type in ('vit', 'deit', 'vit_mae', 'vit_msn'):
            self._positions = dict(interpolate_pos_encoding=True)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) into the last feature map."""
        x = self.model(images, **self._positions).last_hidden_state
        if x.ndim == 4:
            return x
        rows, cols = (side // self.stride for side in images.shape[2:])
        if x.shape[1] < rows * cols:
            raise ValueError(
                f'expected a token for each of {rows} x {cols} patches, got '
                f'{x.shape[1]} tokens of {type(self.model).__name__}; take a '
                'Vision Transformer that keeps them all')
        return x[:, -rows * cols:].transpose(1, 2).unflatten(2, (rows, cols))


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f'expected the package {name}, which builds the teacher; run '
            f'"pip install {name}"') from error
