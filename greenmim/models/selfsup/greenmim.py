# Copyright (c) greenmim authors. All rights reserved.
from typing import List, Optional, Tuple

from torch import Tensor

from greenmim.ops import GroupPlanner, MaskPlan, VisibleLayout
from greenmim.registry import MODELS
from .masked_image_modeling import Latent, MaskedImageModeling


@MODELS.register_module()
class GreenMIM(MaskedImageModeling):
    """GreenMIM: masked image modelling that computes what is visible.

    Implementation of `Green Hierarchical Vision Transformer for Masked Image
    Modeling <https://arxiv.org/abs/2205.13515>`_. The backbone takes a mask
    and says the side of its mask units, ``backbone.unit_size`` pixels; see
    :class:`MaskedImageModeling` for the arguments.
    """

    default_init_cfg: Optional[List[dict]] = [
        dict(type='Xavier', layer='Linear', distribution='uniform'),
        dict(type='greenmim.PatchXavier'),
        dict(type='Constant', layer='LayerNorm', val=1.),
    ]

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels."""
        return self.backbone.unit_size

    def make_group_planner(self) -> GroupPlanner:
        """The planner of the backbone."""
        return self.backbone.make_planner()

    def encode(self, images: Tensor,
               plan: MaskPlan) -> Tuple[Latent, VisibleLayout]:
        """Encode the visible units alone."""
        if getattr(self.neck, 'reads_stages', False):
            return self.backbone.forward_stages(images, plan), plan.layout
        return self.backbone(images, plan), plan.layout
