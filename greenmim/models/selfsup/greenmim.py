# Copyright (c) greenmim authors. All rights reserved.
from typing import List, Optional

from torch import Tensor

from greenmim.ops import GroupPlanner, MaskPlan
from greenmim.registry import MODELS
from ..utils import Encoded
from .masked_image_modeling import MaskedImageModeling


@MODELS.register_module()
class GreenMIM(MaskedImageModeling):
    """GreenMIM: masked image modelling that computes visible units only.

    Implementation of `Green Hierarchical Vision Transformer for Masked Image
    Modeling <https://arxiv.org/abs/2205.13515>`_. The backbone takes a mask
    and defines the side of its mask units, ``backbone.unit_size`` pixels; see
    :class:`MaskedImageModeling` for the arguments.

    Raises:
        ValueError: If the backbone computes all units, as MMPretrain's do.
    """

    default_init_cfg: Optional[List[dict]] = [
        dict(type='Xavier', layer='Linear', distribution='uniform'),
        dict(type='greenmim.PatchXavier'),
        dict(type='Constant', layer='LayerNorm', val=1.),
    ]

    visible_only = True

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels."""
        return self.backbone.unit_size

    def make_planner(self) -> GroupPlanner:
        """The planner of the backbone."""
        if not hasattr(self.backbone, 'make_planner'):
            raise ValueError(
                'expected a backbone that computes visible units alone, as '
                'those named greenmim.GreenMIM... do, got '
                f'{type(self.backbone).__name__}; take one of them, or the '
                'algorithm greenmim.MaskTokenMIM, which computes all units')
        return self.backbone.make_planner()

    def encode(self, images: Tensor, plan: MaskPlan) -> Encoded:
        """Encode the visible units alone."""
        *stages, class_token = self.backbone(images, plan, all_stages=True)
        return Encoded(stages, class_token, plan.layout)
