# Copyright (c) greenmim authors. All rights reserved.
"""The output of encoders.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from dataclasses import dataclass
from typing import Optional, Sequence

from torch import Tensor

from greenmim.ops import VisibleLayout


@dataclass(frozen=True, eq=False)
class Encoded:
    """What an encoder makes of masked images, for the decoder to choose from.

    Args:
        stages (Sequence[Tensor]): The tokens of every stage, unit-major,
            (B, K, T_i, C_i).
        class_token (Tensor | None): Shape (B, C), None if the encoder has
            none.
        layout (VisibleLayout): The units that the tokens belong to: the
            visible ones, or all units where a dense encoder computes all.
    """
    stages: Sequence[Tensor]
    class_token: Optional[Tensor]
    layout: VisibleLayout

    @property
    def latent(self) -> Tensor:
        """The last stage, (B, K * T, C)."""
        return self.stages[-1].flatten(1, 2)
