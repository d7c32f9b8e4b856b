# Copyright (c) greenmim authors. All rights reserved.
"""The interface of decoders.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from mmengine.model import BaseModule
from torch import Tensor

from ..utils import Encoded


class Neck(BaseModule):
    """A decoder that predicts the values of all units.

    A subclass whose ``forward`` takes more than ``(latent, mask)`` overrides
    :meth:`decode`.
    """

    def decode(self, encoded: Encoded) -> Tensor:
        """Call the decoder on the part of the encoder's output that it reads.

        Returns:
            Tensor: Shape (B, L, D), all units in row-major order.
        """
        return self(encoded.latent, encoded.layout)
