# Copyright (c) greenmim authors. All rights reserved.
"""From preprocessed images to pictures for a screen."""
import argparse
from typing import Optional, Sequence

import numpy as np
import torch
from mmengine.model import ImgDataPreprocessor
from torch import Tensor

from greenmim._mmengine import swaps_channels

WHITE_ERROR = 128  # levels, of 255


def add_display_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of :class:`ColourDisplay` to the parser of a tool.

    Args:
        parser (ArgumentParser): The parser.
    """
    parser.add_argument(
        '--bands',
        type=int,
        nargs=3,
        metavar=('RED', 'GREEN', 'BLUE'),
        help='bands to show of images of more than three channels, counted '
        'from 0 (default: 0 1 2)')
    parser.add_argument(
        '--stretch',
        action='store_true',
        help="stretch each shown band to the screen's range, for images that "
        'are too dark to see')


class ColourDisplay:
    """Shows preprocessed images: undoes mean, deviation and channel order.

    Of one or two channels, the first is shown as grey; three are shown as
    colours; of more than three, three bands are. Values are shown as they
    were loaded, unless they are stretched: for every image and band, 2 % of
    the reference's pixels become black and 2 % white.

    Args:
        reference (Tensor): The preprocessed images (B, C, H, W) whose values
            determine the stretching.
        data_preprocessor (ImgDataPreprocessor): The model's.
        bands (Sequence[int], optional): The bands shown as red, green and
            blue, counted from 0, of images of more than three channels.
            Defaults to None, the first three.
        stretch (bool): Whether to stretch values. Defaults to False.

    Raises:
        ValueError: If bands are given that the images do not have.
    """

    def __init__(self,
                 reference: Tensor,
                 data_preprocessor: ImgDataPreprocessor,
                 bands: Optional[Sequence[int]] = None,
                 stretch: bool = False) -> None:
        channels = reference.shape[1]
        if bands is not None and (channels <= 3 or len(bands) != 3
                                  or not all(0 <= b < channels
                                             for b in bands)):
            raise ValueError(
                'expected three bands, counted from 0, of images of more than '
                f'three channels, got bands {list(bands)} of images of '
                f'{channels}')
        self.data_preprocessor = data_preprocessor
        self.bands = list(bands or range(3))
        shown = self._levels(reference).flatten(2)
        self.black, self.range = torch.zeros(()), torch.ones(())
        if stretch:
            low, high = shown.quantile(torch.tensor([.02, .98]), dim=2)
            self.black = low[..., None, None]
            self.range = (high - low).clamp(min=1.)[..., None, None] / 255

    def __call__(self, images: Tensor) -> np.ndarray:
        """Turn images (B, C, H, W) into uint8, (B, H, W, 3), RGB."""
        levels = (self._levels(images) - self.black) / self.range
        levels = levels.round().clamp(0, 255).to(torch.uint8)
        return levels.permute(0, 2, 3, 1).numpy()

    def _levels(self, images: Tensor) -> Tensor:
        """The values of the three channels shown, (B, 3, H, W)."""
        preprocessor = self.data_preprocessor
        images = images.detach().float().cpu()
        if hasattr(preprocessor, 'mean'):
            images = images * preprocessor.std.cpu() + preprocessor.mean.cpu()
        if images.shape[1] < 3:
            return images[:, :1].expand(-1, 3, -1, -1)
        if images.shape[1] > 3:
            return images[:, self.bands]
        # Images are loaded as BGR; the preprocessor may have swapped them.
        return images if swaps_channels(preprocessor) else images.flip(1)


def show_glyphs(images: Tensor, reference: Tensor) -> np.ndarray:
    """Show drawings without colours: the average of the channels, in grey.

    Black is 0, white is the largest value of an image's reference.

    Args:
        images (Tensor): The drawings, (B, C, H, W).
        reference (Tensor): The drawn target, of the same shape.

    Returns:
        np.ndarray: uint8, (B, H, W, 3).
    """
    grey, target = (
        x.detach().float().cpu().mean(1) for x in (images, reference))
    white = target.amax((1, 2), keepdim=True).clamp(min=1e-6)
    levels = (grey / white * 255).round().clamp(0, 255).to(torch.uint8)
    return levels[..., None].expand(-1, -1, -1, 3).numpy()


def heat_map(error: np.ndarray) -> np.ndarray:
    """Colour errors (B, H, W) in levels: black, red, yellow, white.

    Returns:
        np.ndarray: uint8, (B, H, W, 3); white from ``WHITE_ERROR`` on.
    """
    share = error[..., None] * (3 / WHITE_ERROR) - np.arange(3)
    return (share.clip(0, 1) * 255).round().astype(np.uint8)
