# Copyright (c) greenmim authors. All rights reserved.
"""Several targets at once."""
from typing import Any, List, Optional, Sequence, Union

import torch
from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from greenmim.ops import VisibleLayout
from greenmim.registry import MODELS
from ..target_generators import Target


@MODELS.register_module()
class SumOfHeads(BaseModule):
    """Several targets at once: the weighted sum of the losses of heads.

    A unit's predictions are split along the last dimension, the first values
    for the first head. So one decoder predicts several targets, or each stage
    has a decoder and a target of its own, see
    :class:`greenmim.models.LocalReconstructionNeck`.

    Args:
        heads (Sequence[dict]): Configs of the heads, as
            :class:`greenmim.models.GreenMIMHead`. The first draws
            reconstructions.
        channels (Sequence[int]): Values of a unit that each head compares.
            The neck predicts their sum.
        weights (Sequence[float], optional): Weight of each head's loss.
            Defaults to None, 1 for all.

    Raises:
        ValueError: If there are not as many channels and weights as heads.
    """

    def __init__(self,
                 heads: Sequence[dict],
                 channels: Sequence[int],
                 weights: Optional[Sequence[float]] = None) -> None:
        super().__init__()
        if weights is None:
            weights = [1.] * len(heads)
        if not len(heads) == len(channels) == len(weights) or not heads:
            raise ValueError(
                'expected channels and a weight for each of one or more '
                f'heads, got {len(heads)} heads, {len(channels)} channels '
                f'and {len(weights)} weights')
        # MMEngine's list initializes its modules, so that a teacher is loaded.
        self.heads: Any = ModuleList(MODELS.build(head) for head in heads)
        self.channels = list(channels)
        self.weights = list(weights)

    @property
    def target(self) -> Target:
        """The target that reconstructions draw, the first head's."""
        return self.heads[0].target

    def loss(self, pred: Tensor, images: Tensor,
             mask: Union[Tensor, VisibleLayout]) -> Tensor:
        """See :meth:`greenmim.models.GreenMIMHead.loss`."""
        losses = [
            weight * head.loss(part, images, mask)
            for weight, head, part in zip(self.weights, self.heads,
                                          self._split(pred))
        ]
        return torch.stack(losses).sum()

    def to_images(self, pred: Tensor, images: Tensor) -> Tensor:
        """Draw the predictions for the first head."""
        return self.heads[0].to_images(self._split(pred)[0], images)

    def draw_target(self, images: Tensor) -> Tensor:
        """Draw the first head's target."""
        return self.heads[0].draw_target(images)

    def _split(self, pred: Tensor) -> List[Tensor]:
        if pred.shape[-1] != sum(self.channels):
            raise ValueError(
                f'expected predictions of {sum(self.channels)} values a unit, '
                f'the sum of channels={self.channels}, got {pred.shape[-1]}; '
                'set the out_channels of the neck')
        return list(pred.split(self.channels, dim=-1))
