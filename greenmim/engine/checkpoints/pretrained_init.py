# Copyright (c) greenmim authors. All rights reserved.
"""The ``init_cfg`` that loads weights, and says what it has loaded."""
from mmengine.logging import MMLogger
from mmengine.model import PretrainedInit
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from greenmim.weights import report_loading
from ..screen import show


@WEIGHT_INITIALIZERS.register_module(name='Pretrained', force=True)
class ReportingInit(PretrainedInit):
    """In place of MMEngine's, which continues if nothing fits.

    A line says what was loaded and what was not. See
    :class:`mmengine.model.PretrainedInit` for the arguments.

    Raises:
        ValueError: If no tensor of the file fits.
    """

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into a module."""
        logger = MMLogger.get_current_instance()
        content = CheckpointLoader.load_checkpoint(self.checkpoint,
                                                   self.map_location)
        prefix = self.prefix.rstrip('.') + '.' if self.prefix else ''
        tensors = {
            name: tensor
            for name, tensor in content.get('state_dict', content).items()
            if isinstance(tensor, Tensor)
        }
        given = {
            name[len(prefix):]: tensor
            for name, tensor in tensors.items() if name.startswith(prefix)
        }
        if not given:
            raise ValueError(
                f'expected tensors with names that begin with {prefix!r} in '
                f'{self.checkpoint}, found none; convert files of other '
                'libraries with `greenmim import` first')
        others = [name for name in tensors if not name.startswith(prefix)]
        report_loading(module, given, self.checkpoint,
                       lambda line: show(logger, line), prefix, others)
        super().__call__(module)  # which reads the file again
