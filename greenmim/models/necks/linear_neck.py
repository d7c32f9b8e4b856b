# Copyright (c) greenmim authors. All rights reserved.
from typing import List, Optional, Union

from mmengine.model import BaseModule
from torch import Tensor, nn

from greenmim.ops import VisibleLayout
from greenmim.registry import MODELS


@MODELS.register_module()
class LinearNeck(BaseModule):
    """Decoder of SimMIM: a linear layer from a unit's token to its values.

    It needs a token for every unit, as the dense algorithms have.

    Args:
        in_channels (int): Channels of the latent.
        out_channels (int): Values predicted for a unit.
            Defaults to 3072, for units of 32x32 RGB pixels.
        init_cfg (dict | list[dict], optional): Initialization config.
            Defaults to None.
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int = 32 * 32 * 3,
                 init_cfg: Optional[Union[dict, List[dict]]] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.linear = nn.Linear(in_channels, out_channels)

    def forward(self, latent: Tensor, mask: Union[Tensor,
                                                  VisibleLayout]) -> Tensor:
        """Predict (B, L, out_channels) from a latent (B, L, in_channels).

        Raises:
            ValueError: If the latent lacks masked units.
        """
        layout = VisibleLayout.from_mask(mask)
        if layout.num_visible != layout.visible[0].numel():
            raise ValueError(
                'expected the tokens of all units, got those of '
                f'{layout.num_visible} visible ones; use a neck with mask '
                'tokens, GreenMIMNeck for example')
        return self.linear(latent)
