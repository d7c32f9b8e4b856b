# Copyright (c) greenmim authors. All rights reserved.
"""What a model predicts of the same masked images in the course of a run."""
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.model import ImgDataPreprocessor
from torch import Tensor

from .display import ColourDisplay
from .gallery import draw_sheet
from .reconstruction import reconstruction_columns

NAMES = dict(mean='mean', smooth='interpolation')
SMALLEST = 96  # pixels of a drawn image's side


def squared_errors(
        results: Sequence[Mapping[str,
                                  Any]]) -> Tuple[float, Dict[str, float]]:
    """Squared errors of masked pixels in units of the images' variance.

    The unit is the mean variance of an image's channels, all pixels counted.

    Args:
        results (Sequence[dict]): What ``model.reconstruct`` returned of every
            batch.

    Returns:
        tuple[float, dict[str, float]]: That of the model, and those of the
        naive fillings by name.
    """
    totals: Dict[str, float] = {}
    variance = masked = values = 0.
    for result in results:
        truth = result['drawn_target'].double()
        hidden = result['mask'].expand_as(truth)
        masked += float(hidden.sum())
        middle = truth.mean((2, 3), keepdim=True)
        variance += float((truth - middle).square().sum())
        values += truth.numel()
        guesses: Dict[str, Tensor] = dict(
            model=result['pred'], **result['naive'])
        for name, guess in guesses.items():
            error = float((guess - truth).square()[hidden].sum())
            totals[name] = totals.get(name, 0.) + error
    unit = max(variance / values, 1e-12) * max(masked, 1.)
    errors = {name: total / unit for name, total in totals.items()}
    return errors.pop('model'), errors


def learning_sentence(images: str, model: float, naive: Mapping[str, float],
                      width: float) -> str:
    """Say in one sentence who errs least.

    Args:
        images (str): The images in words, such as ``'45 held-out images'``.
        model (float): The squared error of the model.
        naive (dict[str, float]): Those of the naive fillings ``'mean'`` and
            ``'smooth'``.
        width (float): Of the smooth interpolation, in pixels.
    """
    smooth = naive['smooth']
    share = abs(1 - model / max(smooth, 1e-12))
    winner = (f'the model errs by {share:.0%} less than the interpolation'
              if model < smooth else
              f'the interpolation wins, the model errs by {share:.0%} more')
    return (f'Mean squared error of the masked pixels of {images}, in units '
            f"of the images' variance: {model:.3f} for the model, "
            f'{smooth:.3f} for a smooth interpolation of the visible pixels '
            f'(Gaussian weights, {width:.3g} pixels) and {naive["mean"]:.3f} '
            f'for their mean: {winner}.')


def learning_columns(
        results: Sequence[Mapping[str, Any]],
        data_preprocessor: ImgDataPreprocessor,
        number: int,
        bands: Optional[Sequence[int]] = None,
        stretch: bool = False) -> Tuple[Dict[str, np.ndarray], Tensor]:
    """The pictures of the first images.

    Args:
        results (Sequence[dict]): As for :func:`squared_errors`.
        data_preprocessor (ImgDataPreprocessor): The model's.
        number (int): Images at most.
        bands (Sequence[int], optional): See :class:`.display.ColourDisplay`.
            Defaults to None, the first three.
        stretch (bool): See there. Defaults to False.

    Returns:
        tuple: The columns that no training changes, uint8 of shape
        (B, H, W, 3): the image, the masked image, and the naive fillings of
        masked pixels; and the prediction of masked pixels as a tensor.
    """
    columns: Dict[str, List[np.ndarray]] = {}
    for result in results:
        part = reconstruction_columns(result, data_preprocessor, bands,
                                      stretch)
        display = ColourDisplay(result['known'], data_preprocessor, bands,
                                stretch)
        mask = result['mask'].cpu().permute(0, 2, 3, 1).numpy()
        pictures = dict(image=part['input'], masked=part['masked'])
        for name, filled in result['naive'].items():
            pictures[NAMES[name]] = np.where(mask, display(filled),
                                             part['input'])
        for name, images in dict(pictures, paste=part['paste']).items():
            columns.setdefault(name, []).append(images)
    joined = {
        name: np.concatenate(parts)[:number]
        for name, parts in columns.items()
    }
    return joined, torch.from_numpy(joined.pop('paste'))


def draw_learning(before: Mapping[str, np.ndarray],
                  predictions: Mapping[str, Tensor],
                  captions: Sequence[str]) -> np.ndarray:
    """One row for each image: what is known of it, and each prediction.

    Args:
        before (dict[str, np.ndarray]): Columns without a model, uint8 of shape
            (B, H, W, 3).
        predictions (dict[str, Tensor]): The model's, alike, by the share of
            the run.
        captions (Sequence[str]): Paragraphs below the pictures.

    Returns:
        np.ndarray: uint8, (rows, columns, 3), RGB. Small images are drawn in
        multiples of their size.
    """
    columns = dict(before)
    columns.update({name: x.numpy() for name, x in predictions.items()})
    side = min(next(iter(columns.values())).shape[1:3])
    times = -(-SMALLEST // side)
    return draw_sheet(
        {
            name: images.repeat(times, 1).repeat(times, 2)
            for name, images in columns.items()
        }, captions)
