# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Sequence

import torch
from mmpretrain.models import SelfSupDataPreprocessor

from greenmim.registry import MODELS


@MODELS.register_module()
class ChannelDataPreprocessor(SelfSupDataPreprocessor):
    """Normalises images of any number of channels.

    MMPretrain's class takes one or three means and deviations.

    Args:
        mean (Sequence[float]): The mean of every channel, as
            ``tools/misc/channel_statistics.py`` prints it.
        std (Sequence[float]): The standard deviation of every channel.
        **kwargs: Arguments of ``mmpretrain.SelfSupDataPreprocessor``.

    Raises:
        ValueError: If the numbers of means and deviations differ, or a
            deviation is not above 0.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float],
                 **kwargs: Any) -> None:
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(
                'expected a mean and a standard deviation above 0 for every '
                f'channel, got {list(mean)} and {list(std)}')
        super().__init__(**kwargs)
        self._enable_normalize = True
        for name, values in ('mean', mean), ('std', std):
            buffer = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)
