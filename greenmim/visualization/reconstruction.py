# Copyright (c) greenmim authors. All rights reserved.
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence

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
TRUTH = ("The model predicts every unit's pixels relative to their own mean "
         'and deviation; these two are taken from the input.')
NEIGHBOURS = ("The model predicts every unit's pixels relative to their own "
              'mean and deviation; these two are guessed from the visible '
              'units nearby.')
GLYPHS = ('The model predicts no colours: bars show the orientation of edges '
          'and how strong they are. Target: what was to be predicted.')


def reconstruction_columns(result: Dict[str, Any],
                           data_preprocessor: ImgDataPreprocessor,
                           bands: Optional[Sequence[int]] = None,
                           stretch: bool = False) -> Dict[str, np.ndarray]:
    """Turn the reconstruction of a model into pictures.

    Args:
        result (dict): What ``model.reconstruct`` returns: ``pred`` and
            ``target`` (B, C, H, W), ``mask`` (B, 1, H, W); with
            ``drawn_target`` of the same shape where the target is not the
            images themselves, and ``pred_is_image`` (True by default).
        data_preprocessor (ImgDataPreprocessor): The model's, whose mean, std
            and channel order are undone.
        bands (Sequence[int], optional): See :class:`.display.ColourDisplay`.
            Defaults to None, the first three.
        stretch (bool): See there. Defaults to False.

    Returns:
        dict[str, np.ndarray]: The pictures of every column, uint8 of shape
        (B, H, W, 3): the input; the input with masked pixels in grey; the
        prediction for all pixels; the prediction pasted into the visible
        input; the target, unless it is the input; and the error.
    """
    display = ColourDisplay(result['target'], data_preprocessor, bands,
                            stretch)
    truth: Tensor = result.get('drawn_target', result['target'])
    show: Callable[[Tensor], np.ndarray] = display
    if not result.get('pred_is_image', True):
        show = partial(show_glyphs, reference=truth)
    image, pred, target = display(result['target']), show(
        result['pred']), show(truth)
    mask = result['mask'].cpu().permute(0, 2, 3, 1).numpy()
    error = np.abs(pred.astype(np.float32) - target).mean(-1) * mask[..., 0]
    columns = dict(
        input=image,
        masked=np.where(mask, np.uint8(GREY), image),
        reconstruction=pred,
        paste=np.where(mask, pred, image))
    if not torch.allclose(truth, result['target'], rtol=0, atol=1e-3):
        columns['target'] = target
    columns['error'] = heat_map(error)
    return columns


def captions_of(result: Dict[str, Any]) -> List[str]:
    """Captions that explain a reconstruction.

    If the target is normalised unit by unit, they say where mean and deviation
    come from.

    Args:
        result (dict): What the model's ``reconstruct`` returned.
    """
    captions = [CAPTION]
    if not result.get('pred_is_image', True):
        captions.append(GLYPHS)
    if result['pred_uses_target_statistics']:
        captions.append(TRUTH)
    elif result.get('pred_uses_neighbour_statistics'):
        captions.append(NEIGHBOURS)
    return captions
