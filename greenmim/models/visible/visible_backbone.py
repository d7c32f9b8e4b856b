# Copyright (c) greenmim authors. All rights reserved.
"""The interface of a backbone that computes visible mask units only."""
from typing import Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from greenmim.ops import (GroupIndex, GroupPlan, GroupPlanner, MaskPlan,
                          StageWindows, VisibleLayout, Window, unit_grid)

Mask = Union[Tensor, VisibleLayout, MaskPlan]


class StageOutputs(List[Tensor]):
    """What the stages put out, and a class token beside it.

    Attributes:
        class_token: Shape (B, C) after the final norm, or None.
    """
    class_token: Optional[Tensor] = None


class VisibleBackbone:
    """Adds the masked forward to a dense backbone.

    It stands before the dense parent among the bases of a class, which then
    has the parent's parameters and, without a mask, its forward. The class
    provides :attr:`unit_size`, :attr:`image_channels` and
    :meth:`forward_visible`; one with windows of attention also
    :meth:`stage_windows`, one with options that only work densely
    :meth:`check_masked`.
    """

    @property
    def reads_map_size(self) -> bool:
        """Whether a token depends on the size of the map around it.

        Positions that are resized to the map do so, for example. Images of
        such a backbone cannot be padded.
        """
        return False

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels: the stride of the last stage."""
        raise NotImplementedError

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        raise NotImplementedError

    def forward_visible(self, x: Tensor, plan: MaskPlan) -> List[Tensor]:
        """Every stage's tokens, (B, K, T_i, C_i); see `forward_stages`.

        Args:
            x (Tensor): Images of shape (B, C, H, W) that fit the plan.
            plan (MaskPlan): The plan of their masks.
        """
        raise NotImplementedError

    def stage_windows(self) -> Sequence[StageWindows]:
        """The window attention of every stage that has one."""
        return ()

    def check_masked(self) -> None:
        """Raise ``ValueError`` where options exclude a masked forward."""

    def make_planner(self, cache_size: int = 0) -> GroupPlanner:
        """A planner for this backbone, for the data-loading workers say.

        Args:
            cache_size (int): Number of plans that are kept, for masks that
                repeat. Defaults to 0.
        """
        return GroupPlanner(self.stage_windows(), cache_size=cache_size)

    def forward(
            self,
            x: Tensor,
            mask: Union[Mask,
                        None] = None) -> Union[Tensor, Tuple[Tensor, ...]]:
        """Forward images densely, or their visible units only.

        Args:
            x (Tensor): Images of shape (B, C, H, W).
            mask (Tensor | VisibleLayout | MaskPlan, optional): Bool of shape
                (B, Gh, Gw), or (1, Gh, Gw) for one mask shared by the batch,
                True = masked; or a layout or plan made from it. Defaults to
                None, the dense parent's forward.

        Returns:
            tuple[Tensor] | Tensor: Without a mask the parent's feature maps,
            each of shape (B, C, H, W). With a mask the latent of shape
            (B, K * t, C) after the final norm, visible units in row-major
            order, t tokens each (1 where the stride is the unit's side).

        Raises:
            ValueError: If image and mask do not fit the backbone or each
                other.
        """
        if mask is None:
            return super().forward(x)  # type: ignore[misc]
        return self.forward_stages(x, mask)[-1].flatten(1, 2)

    def forward_stages(self, x: Tensor, mask: Mask) -> List[Tensor]:
        """Forward the visible units and return every stage's output.

        Args:
            x (Tensor): Images of shape (B, C, H, W).
            mask (Tensor | VisibleLayout | MaskPlan): See :meth:`forward`.

        Returns:
            list[Tensor]: Unit-major tokens of shape (B, K, T_i, C_i), stage
            by stage, before the downsampling layer. Those of a stage whose
            norm the dense model has are normed; the last always are.

        Raises:
            ValueError: See :meth:`forward`.
        """
        self.check_masked()
        channels = self.image_channels
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(
                f'expected images of shape (B, {channels}, H, W), got '
                f'{tuple(x.shape)}; in_channels of the backbone and the '
                'channels that the pipeline loads must agree')
        grid = unit_grid(x.shape[-2:], self.unit_size)
        plan = mask
        if not isinstance(plan, MaskPlan):
            plan = self.make_planner()(plan, grid)
        num_stages = len(self.stage_windows())
        if len(plan.groups) != num_stages:
            raise ValueError(f'expected a plan for {num_stages} stages, got '
                             f'one for {len(plan.groups)}; plan with '
                             'make_planner() of this backbone')
        layout = VisibleLayout.from_mask(plan.layout, grid)
        layout.check_batch(len(x))
        if layout.valid is not None and self.reads_map_size:
            raise ValueError(
                f'expected images of one size, since {type(self).__name__} '
                'resizes its positions to the map; crop them, or choose a '
                'backbone without such positions for a padded batch')
        return self.forward_visible(x, plan)


def index_windows(groups: Dict[Window, GroupPlan], windows: Sequence[Window],
                  num_sequences: int, num_heads: int,
                  device: torch.device) -> Dict[Window, GroupIndex]:
    """The plans of a stage's windows, on the device.

    Args:
        groups (dict[Window, GroupPlan]): The plans of the stage.
        windows (Sequence[Window]): The windows of its blocks, as they fit
            its map.
        num_sequences (int): 1 for a mask per image, else the batch size.
        num_heads (int): Attention heads of the stage.
        device (torch.device): Where the tokens are.

    Raises:
        ValueError: If the plans are those of another backbone.
    """
    if not groups.keys() >= set(windows):
        raise ValueError(
            f'expected a plan for {set(windows)}, got one for {set(groups)}; '
            'plan with make_planner() of this backbone')
    return {
        window:
        GroupIndex.from_plan(groups[window], num_sequences, num_heads, device)
        for window in set(windows)
    }
