# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Dict, List

import numpy as np
import torch
from mmengine.model import ImgDataPreprocessor
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

COLUMNS = ('input', 'masked', 'reconstruction', 'paste')
GAP = 8  # pixels between pictures and around them
TEXT = 20  # height of a line of text
GREY = 128  # of masked pixels

CAPTION = ('Reconstruction: everything as predicted. Paste: predictions where '
           'masked, input elsewhere.')
STATISTICS = ("The model predicts every unit's pixels relative to their own "
              'mean and deviation; these two are taken from the input.')


def draw_reconstruction(result: Dict[str, Any],
                        data_preprocessor: ImgDataPreprocessor) -> np.ndarray:
    """Draw what a model reconstructs, one row for each image.

    The columns are the input, the input with masked pixels in grey, the
    prediction for all pixels, and the prediction pasted into the visible
    input. A caption says what is predicted and what is not: where the target
    is normalised unit by unit, the true mean and deviation undo it.

    Args:
        result (dict): What ``model.reconstruct`` returns: ``pred`` and
            ``target`` (B, C, H, W), ``mask`` (B, 1, H, W), and
            ``pred_uses_target_statistics``.
        data_preprocessor (ImgDataPreprocessor): The model's; its mean, std
            and channel order are undone. Images of one channel are drawn
            grey; of more than three the first three are drawn.

    Returns:
        np.ndarray: uint8, (rows, columns, 3), RGB. The picture of row i and
        column j starts at pixel
        ``(TEXT + i * (H + GAP), GAP + j * (W + GAP))``.
    """
    pred = _to_rgb(result['pred'], data_preprocessor)
    target = _to_rgb(result['target'], data_preprocessor)
    mask = result['mask'].cpu().permute(0, 2, 3, 1).numpy()
    masked = np.where(mask, np.uint8(GREY), target)
    paste = np.where(mask, pred, target)
    columns = (target, masked, pred, paste)

    B, H, W, _ = target.shape
    captions = [CAPTION]
    if result['pred_uses_target_statistics']:
        captions.append(STATISTICS)
    lines = [
        line for caption in captions
        for line in _wrap(caption, 4 * (W + GAP) - GAP)
    ]
    size = (GAP + 4 * (W + GAP), TEXT + B * (H + GAP) + TEXT * len(lines))
    sheet = Image.new('RGB', size, 'white')
    draw = ImageDraw.Draw(sheet)
    for j, (name, images) in enumerate(zip(COLUMNS, columns)):
        x = GAP + j * (W + GAP)
        draw.text((x, 2), name, 'black', _font())
        for i, image in enumerate(images):
            sheet.paste(Image.fromarray(image), (x, TEXT + i * (H + GAP)))
    for i, line in enumerate(lines):
        y = TEXT + B * (H + GAP) + i * TEXT
        draw.text((GAP, y), line, 'black', _font())
    return np.array(sheet)


def _to_rgb(images: Tensor,
            data_preprocessor: ImgDataPreprocessor) -> np.ndarray:
    """Turn preprocessed images (B, C, H, W) into uint8, (B, H, W, 3)."""
    images = images.detach().float().cpu()
    if data_preprocessor._enable_normalize:
        images = (
            images * data_preprocessor.std.cpu() +
            data_preprocessor.mean.cpu())
    images = images.round().clamp(0, 255).to(torch.uint8)
    if images.shape[1] < 3:
        images = images[:, :1].expand(-1, 3, -1, -1)
    # Images are loaded as BGR; the preprocessor may have swapped them.
    elif images.shape[1] == 3 and not data_preprocessor._channel_conversion:
        images = images.flip(1)
    return images[:, :3].permute(0, 2, 3, 1).numpy()


def _font() -> Any:
    return ImageFont.load_default(size=13)


def _wrap(text: str, width: int) -> List[str]:
    """Break a text into lines that are at most so many pixels wide."""
    lines = ['']
    for word in text.split():
        longer = f'{lines[-1]} {word}'.strip()
        if _font().getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
