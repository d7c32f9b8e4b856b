# Copyright (c) greenmim authors. All rights reserved.
"""Learning rates that decrease towards the first layer, for any model."""
from functools import partial
from typing import Any, Callable, List, Optional

from mmpretrain.engine import LearningRateDecayOptimWrapperConstructor
from torch import nn

from greenmim.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(
        LearningRateDecayOptimWrapperConstructor):
    """MMPretrain's layer-wise learning rates for any model with a backbone.

    MMPretrain gets the depth of a parameter from the model, which detectors
    and segmentors do not provide. Here the backbone provides it; necks and
    heads have the depth after its last layer. The arguments are the parent's.
    """

    def add_params(self,
                   params: List[dict],
                   module: nn.Module,
                   prefix: str = '',
                   get_layer_depth: Optional[Callable] = None,
                   **kwargs: Any) -> None:
        """Add the parameters of a module, each as a group.

        Raises:
            ValueError: If the model has no backbone that provides depths.
        """
        if get_layer_depth is None:
            backbone = getattr(module, 'backbone', None)
            of_backbone = getattr(backbone, 'get_layer_depth', None)
            if of_backbone is None:
                raise ValueError(
                    'expected a model with a backbone that has '
                    f'`get_layer_depth`, got {type(module).__name__} with '
                    f'{type(backbone).__name__}; use a backbone of MMPretrain '
                    'or greenmim')
            get_layer_depth = partial(of_backbone, prefix='backbone.')
        super().add_params(params, module, prefix, get_layer_depth, **kwargs)
