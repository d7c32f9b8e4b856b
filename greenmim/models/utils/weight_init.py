# Copyright (c) greenmim authors. All rights reserved.
from mmengine.model import BaseModule
from torch import nn

from greenmim._mmengine import record_initialization
from greenmim.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module(name='PatchXavier')
class PatchXavierInit:
    r"""Xavier-uniform weights for convolutions that embed patches.

    Such a convolution is a linear layer on the values of a patch, so its
    weight is drawn as that layer's matrix with :math:`n_{in} = C k_h k_w`
    inputs and :math:`n_{out}` outputs, from
    :math:`U(-b, b), b = \sqrt{6 / (n_{in} + n_{out})}`. (``type='Xavier'``
    counts :math:`n_{out} k_h k_w` outputs.) Biases are zeroed. Every
    ``Conv2d`` of the module is initialised.
    """

    def __call__(self, module: nn.Module) -> None:
        for m in module.modules():
            if isinstance(m, nn.Conv2d):
                bound = (6 / (m.weight[0].numel() + m.out_channels))**0.5
                nn.init.uniform_(m.weight, -bound, bound)
                if m.bias is not None:
                    nn.init.zeros_(m.bias)
        record_initialization(module, type(self).__name__)


def draw_mask_token(module: BaseModule) -> None:
    """Draw a module's ``mask_token``, unless its weights were loaded.

    Args:
        module (BaseModule): A module with a parameter ``mask_token``.
    """
    cfgs = module.init_cfg or []
    cfgs = [cfgs] if isinstance(cfgs, dict) else cfgs
    if all(cfg['type'] != 'Pretrained' for cfg in cfgs):
        nn.init.normal_(module.mask_token, std=.02)
