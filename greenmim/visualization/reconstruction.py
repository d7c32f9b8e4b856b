# Copyright (c) greenmim authors. All rights reserved.
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import numpy as np
import torch
from mmengine.model import ImgDataPreprocessor
from torch import Tensor

from .display import WHITE_ERROR, ColourDisplay, heat_map, show_glyphs

GREY = 128  # of masked pixels

CAPTION = ('Reconstruction: everything as predicted, visible units too; no '
           'loss trains these, so that noise there is normal. Paste: '
           'predictions where masked, input elsewhere. Error: of the paste '
           'against what was to be predicted, averaged over the channels '
           f'shown; white is {WHITE_ERROR} of 255 levels or more.')
NAIVE = ('Naive: without a model, a smooth interpolation of the means of '
         'visible units.')
NEIGHBOURS = ("The model predicts every unit's pixels relative to their own "
              'mean and deviation; these two are guessed from the visible '
              'units nearby.')
GLYPHS = ('The model predicts no colours: bars show the orientation of edges '
          'and how strong they are. Target: what was to be predicted.')


def reconstruction_columns(result: Mapping[str, Any],
                           data_preprocessor: ImgDataPreprocessor,
                           bands: Optional[Sequence[int]] = None,
                           stretch: bool = False) -> Dict[str, np.ndarray]:
    """Turn the reconstruction of a model into pictures.

    Args:
        result (dict): What ``model.reconstruct`` returns: ``pred`` and
            ``target`` (B, C, H, W), ``mask`` (B, 1, H, W), and the other keys
            that are named there.
        data_preprocessor (ImgDataPreprocessor): The model's, whose mean, std
            and channel order are undone.
        bands (Sequence[int], optional): See :class:`.display.ColourDisplay`.
            Defaults to None, the first three.
        stretch (bool): See there. Defaults to False.

    Returns:
        dict[str, np.ndarray]: The pictures of every column, uint8 of shape
        (B, H, W, 3): the input; the input with masked pixels in grey; the
        prediction for all pixels; the prediction pasted into the visible
        input; a naive filling pasted alike; the target, unless it is the
        input; and the error. Masked pixels affect input, target and error
        alone.
    """
    display = ColourDisplay(result['known'], data_preprocessor, bands, stretch)
    truth: Tensor = result['drawn_target']
    show: Callable[[Tensor], np.ndarray] = display
    if not result['pred_is_image']:
        show = partial(show_glyphs, reference=result['drawn_known'])
    image, pred, target = display(result['target']), show(
        result['pred']), show(truth)
    mask = result['mask'].cpu().permute(0, 2, 3, 1).numpy()
    error = np.abs(pred.astype(np.float32) - target).mean(-1) * mask[..., 0]
    columns = dict(
        input=image,
        masked=np.where(mask, np.uint8(GREY), image),
        reconstruction=pred,
        paste=np.where(mask, pred, image))
    if result['naive']:
        naive = display(result['naive']['smooth'])
        columns['naive'] = np.where(mask, naive, image)
    if not torch.allclose(truth, result['target'], rtol=0, atol=1e-3):
        columns['target'] = target
    columns['error'] = heat_map(error)
    return columns


def captions_of(result: Dict[str, Any]) -> List[str]:
    """Captions that explain a reconstruction.

    The last one gives the error beside that of naive fillings. If the target
    is normalised unit by unit, they say where mean and deviation come from.

    Args:
        result (dict): What the model's ``reconstruct`` returned.
    """
    captions = [CAPTION]
    if not result['pred_is_image']:
        captions.append(GLYPHS)
    if result['pred_uses_neighbour_statistics']:
        captions.append(NEIGHBOURS)
    if result['naive']:
        captions.append(NAIVE)
    errors = torch.tensor(errors_of(result)).mean(0).tolist()
    captions.append(f'Mean over the images: {_describe(errors, result)}.')
    return captions


def errors_of(result: Dict[str, Any]) -> List[List[float]]:
    """Mean squared errors of masked pixels, relative to their variance.

    Args:
        result (dict): What the model's ``reconstruct`` returned.

    Returns:
        list[list[float]]: For each image that of the prediction, and those of
        the naive fillings. 1 is the error of the true mean of the masked
        pixels, which neither knows; nan where nothing is masked.
    """
    truth = result['drawn_target'].float()
    hidden = result['mask'].expand_as(truth)
    guesses = [result['pred'], *result['naive'].values()]
    rows = []
    for i, place in enumerate(hidden):
        pixels = truth[i][place]
        variance = pixels.var(unbiased=False).clamp(min=1e-12)
        rows.append([
            ((guess[i][place] - pixels).square().mean() / variance).item()
            for guess in guesses
        ])
    return rows


def error_remarks(result: Dict[str, Any]) -> List[str]:
    """The errors of each image in words.

    Args:
        result (dict): What the model's ``reconstruct`` returned.
    """
    return [_describe(errors, result) for errors in errors_of(result)]


def _describe(errors: Sequence[float], result: Dict[str, Any]) -> str:
    names = dict(
        model='the model',
        mean='the mean of the visible pixels',
        smooth='a smooth interpolation')
    parts = [
        f'{error:.2f} for {names[name]}'
        for name, error in zip(('model', *result['naive']), errors)
    ]
    return ('error of masked pixels in units of their variance: '
            f'{", ".join(parts)}')
