# Copyright (c) greenmim authors. All rights reserved.
import torch
from torch import Tensor


def effective_rank(features: Tensor) -> float:
    r"""The number of directions in which features vary.

    :math:`\exp(-\sum_i p_i \ln p_i)` for the singular values
    :math:`\sigma_i` of the centred features, :math:`p_i = \sigma_i / \sum_j
    \sigma_j` (Roy and Vetterli, EUSIPCO 2007, definition 1). It is 1 if all
    lie on a line, and at most min(N - 1, C), if they vary equally in all
    directions.

    Args:
        features (Tensor): Shape (N, C), N >= 2.

    Returns:
        float: The effective rank; 0 if all features are equal, NaN if some
        are not finite.

    Raises:
        ValueError: If the features are not a matrix of two or more rows.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError('expected features of shape (N, C) for two images or '
                         f'more, got {tuple(features.shape)}')
    features = features.detach().double().cpu()
    if not features.isfinite().all():
        return float('nan')
    values = torch.linalg.svdvals(features - features.mean(0))
    # Equal features leave rounding errors.
    values = values[values > 1e-9 * features.norm()]
    if not len(values):
        return 0.
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp().item()


def relative_spread(features: Tensor) -> float:
    """How much features differ: their deviation relative to their size.

    The root mean square distance of features from their mean, divided by
    their root mean square length.

    Args:
        features (Tensor): Shape (N, C).

    Returns:
        float: From 0, if all are equal or zero, to 1, if their mean is zero.
    """
    features = features.detach().double().cpu()
    deviation = (features - features.mean(0)).norm()
    return (deviation / features.norm().clamp(min=1e-300)).item()
