# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Dict, Sequence

import torch
from mmpretrain.models import SelfSupDataPreprocessor

from greenmim.registry import MODELS


@MODELS.register_module()
class ChannelDataPreprocessor(SelfSupDataPreprocessor):
    """Normalises images of any number of channels.

    MMPretrain's class takes one or three means and deviations, and waits for
    the device when it swaps channels: it sends their numbers.

    Args:
        mean (Sequence[float]): The mean of every channel, as
            ``tools/misc/channel_statistics.py`` prints it.
        std (Sequence[float]): The standard deviation of every channel.
        **kwargs: Arguments of ``mmpretrain.SelfSupDataPreprocessor``.

    Raises:
        ValueError: If the numbers of means and deviations differ, a
            deviation is not above 0, or other than three channels shall be
            swapped.
    """

    _channel_conversion: bool

    def __init__(self, mean: Sequence[float], std: Sequence[float],
                 **kwargs: Any) -> None:
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(
                'expected a mean and a standard deviation above 0 for every '
                f'channel, got {list(mean)} and {list(std)}')
        super().__init__(**kwargs)
        self.flips_channels = self._channel_conversion
        if self.flips_channels and len(mean) != 3:
            raise ValueError(
                'expected three channels where BGR is turned into RGB, got '
                f'{len(mean)}; leave to_rgb=False')
        self._channel_conversion = False
        self._enable_normalize = True
        for name, values in ('mean', mean), ('std', std):
            buffer = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, data: dict, training: bool = False) -> Dict[str, Any]:
        """Flip the channels, if they shall be, and do what the parent does.

        For arguments and result see ``mmpretrain.SelfSupDataPreprocessor``.
        """
        if self.flips_channels:
            data = self.cast_data(data)
            images = data['inputs']
            images = ([view.flip(1) for view in images] if isinstance(
                images, list) else images.flip(1))
            data = {**data, 'inputs': images}
        return super().forward(data, training)
