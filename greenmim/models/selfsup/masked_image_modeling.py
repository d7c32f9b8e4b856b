# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.nn import functional as F

from greenmim.ops import GroupPlanner, MaskPlan, VisibleLayout
from greenmim.registry import TASK_UTILS
from ..masking import MaskPlanner
from ..target_generators import fill_from_neighbours

Images = Union[Tensor, Sequence[Tensor]]
Latent = Union[Tensor, List[Tensor]]
NeckInputs = Union[Tuple[Latent, VisibleLayout], Tuple[Latent, VisibleLayout,
                                                       Optional[Tensor]]]


class MaskedImageModeling(BaseSelfSupervisor):
    """Mask images, encode them, predict what is masked, and compare.

    The base of the algorithms, which differ in how they encode a masked
    image (:meth:`encode`). Mask sampler, backbone, decoder (neck) and target
    (head) are parts to choose.

    Where :attr:`image_size` is set, as :class:`greenmim.engine.ImageSizeHook`
    does, images are scaled down to it first, in training mode alone.

    A mask is drawn on the CPU, from the ``mask_seed`` of the first data
    sample or else torch's global generator, unless the data samples bring
    masks; those that come on a device cost one copy. Images need sides that
    are multiples of the mask unit, to which
    :func:`greenmim.datasets.padding_collate` pads a batch of any sizes.

    Args:
        backbone (dict | nn.Module): The encoder.
        neck (dict | nn.Module): The decoder, predicts the values of all
            units.
        head (dict | nn.Module): Makes the target and the loss.
        mask_ratio (float): Share of the units that is masked, in [0, 1).
            Defaults to 0.75.
        mask_scope (str): ``'batch'`` draws one mask for the images of a
            batch (and process), as the paper does; ``'image'`` draws one for
            every image. Defaults to ``'batch'``.
        mask_sampler (dict): Config of what draws the masks, called as
            :func:`greenmim.models.masking.random_mask`.
            Defaults to ``dict(type='greenmim.RandomMask')``.
        data_preprocessor (dict | nn.Module, optional): See
            :class:`mmpretrain.models.BaseSelfSupervisor`. Defaults to None.
        init_cfg (dict | list[dict], optional): Initialization config.
            Defaults to None, the algorithm's :attr:`default_init_cfg`.
    """

    default_init_cfg: Optional[List[dict]] = None
    visible_only = False

    image_size: Optional[Tuple[int, int]] = None
    """Height and width in pixels to train with; None leaves images be."""

    def __init__(self,
                 backbone: Union[dict, nn.Module],
                 neck: Union[dict, nn.Module],
                 head: Union[dict, nn.Module],
                 mask_ratio: float = 0.75,
                 mask_scope: str = 'batch',
                 mask_sampler: dict = dict(type='greenmim.RandomMask'),
                 data_preprocessor: Optional[Union[dict, nn.Module]] = None,
                 init_cfg: Optional[Union[dict, List[dict]]] = None) -> None:
        if init_cfg is None:
            init_cfg = self.default_init_cfg
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg)
        self.mask_planner = MaskPlanner(self.make_group_planner(),
                                        self.unit_size, mask_ratio, mask_scope,
                                        TASK_UTILS.build(mask_sampler))

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels."""
        raise NotImplementedError

    def make_group_planner(self) -> GroupPlanner:
        """The planner of the backbone."""
        return GroupPlanner(())

    def encode(self, images: Tensor, plan: MaskPlan) -> NeckInputs:
        """Encode masked images for the neck.

        Args:
            images (Tensor): Shape (B, C, H, W).
            plan (MaskPlan): The plan of their masks.

        Returns:
            tuple: The latent, or where the neck ``reads_stages`` the tokens
            of all stages; the units that it holds, a ``VisibleLayout``; and
            where the neck ``reads_class_token`` that token, (B, C).
        """
        raise NotImplementedError

    def extract_feat(self,
                     inputs: Images) -> Union[Tensor, Tuple[Tensor, ...]]:
        """Dense features of unmasked images, the backbone's own output.

        Args:
            inputs (Tensor | list[Tensor]): Images (B, C, H, W), or a list of
                one such tensor, as MMSelfSup has it.

        Returns:
            tuple[Tensor, ...]: Feature maps (B, C_i, H_i, W_i).
        """
        return self.backbone(_single_view(inputs))

    def loss(self, inputs: Images,
             data_samples: Optional[List[DataSample]]) -> Dict[str, Tensor]:
        """Mask a batch of images, predict what is masked, and compare.

        Args:
            inputs (Tensor | list[Tensor]): Images of shape (B, C, H, W), or
                a list that holds just them, as MMSelfSup passes them.
            data_samples (list[DataSample], optional): Their ``mask`` is used
                where they have one: (Gh, Gw), True or 1 = masked, or a finer
                mask that hides units as a whole. All samples bring a mask,
                or none does. A plan that the data loader made for the batch
                is used, see :class:`greenmim.engine.PlanAheadHook`. The
                ``own_sizes`` of the first say which units are padding, see
                :func:`greenmim.datasets.padding_collate`.

        Returns:
            dict[str, Tensor]: The loss under the key ``loss``.

        Raises:
            ValueError: If the images' sides are no multiples of the mask
                unit, the images are smaller than :attr:`image_size`, or the
                masks do not fit the images.
        """
        first = data_samples[0] if data_samples else DataSample()
        own_sizes = first.get('own_sizes')
        images = _single_view(inputs)
        if self.training and self.image_size is not None:
            if own_sizes is not None:
                raise ValueError(
                    'expected images of one size to scale down, got a padded '
                    'batch; use either ImageSizeHook or padding_collate')
            images = _scale_down(images, self.image_size)
        plan = first.get('mask_plan')
        if plan is None:
            plan = self._plan(images, _masks_of(data_samples),
                              first.get('mask_seed'), own_sizes)
        pred = self.neck(*self.encode(images, plan))
        return dict(loss=self.head.loss(pred, images, plan.layout))

    @torch.no_grad()
    def reconstruct(self,
                    inputs: Images,
                    mask: Optional[Union[Tensor, VisibleLayout]] = None,
                    statistics: str = 'truth') -> Dict[str, Any]:
        """Reconstruct images, ready to be drawn.

        Call ``eval()`` first: dropout and drop path act as the mode says.

        Args:
            inputs (Tensor | list[Tensor]): Preprocessed images of shape
                (B, C, H, W), or a list that holds just them.
            mask (Tensor | VisibleLayout, optional): Bool of shape
                (B, Gh, Gw), or (1, Gh, Gw) for one mask shared by the batch,
                True = masked. Defaults to None, a mask is drawn.
            statistics (str): Where the target is normalised unit by unit,
                the mean and deviation that undo it in masked units are those
                of the true pixels, ``'truth'``, or follow from the visible
                units nearby, ``'neighbours'``, see
                ``fill_from_neighbours``. Defaults to ``'truth'``.

        Returns:
            dict: On the device of the images and in their (preprocessed)
            values,

            - ``pred``: (B, C, H, W), the prediction for all units.
            - ``target``: (B, C, H, W), the images.
            - ``drawn_target``: (B, C, H, W), what ``pred`` would be if it
                were right, the images themselves where pixels are predicted.
            - ``mask``: Bool of shape (B, 1, H, W), True = masked.
            - ``pred_is_image``: Whether ``pred`` and ``drawn_target`` are in
                the values of images, False of histograms drawn as bars.
            - ``pred_uses_target_statistics``: True if the target is
                normalised, so that ``pred`` has been scaled and shifted, unit
                by unit, by the statistics of the true pixels.
            - ``pred_uses_neighbour_statistics``: True if by those of
                neighbours.

        Raises:
            ValueError: As :meth:`loss`, if ``statistics`` is neither, or the
                target cannot be drawn.
        """
        if statistics not in ('truth', 'neighbours'):
            raise ValueError("expected statistics to be 'truth' or "
                             f"'neighbours', got {statistics!r}")
        images = _single_view(inputs)
        plan = self._plan(images, mask)
        layout = plan.layout
        pred = self.neck(*self.encode(images, plan))
        size = self.unit_size
        masked = ~layout.visible[:, None]
        masked = masked.repeat_interleave(size, 2).repeat_interleave(size, 3)
        known = images
        if statistics == 'neighbours':
            known = fill_from_neighbours(images, layout, size)
        uses_statistics = self.head.uses_target_statistics
        return dict(
            pred=self.head.to_images(pred, known),
            target=images,
            drawn_target=self.head.draw_target(images),
            mask=masked.to(images.device).expand(images.shape[0], -1, -1, -1),
            pred_is_image=self.head.draws_images,
            pred_uses_target_statistics=(uses_statistics
                                         and statistics == 'truth'),
            pred_uses_neighbour_statistics=(uses_statistics
                                            and statistics == 'neighbours'))

    def _plan(
            self,
            images: Tensor,
            mask: Optional[Union[Tensor, VisibleLayout]],
            seed: Optional[int] = None,
            own_sizes: Optional[Sequence[Tuple[int, int]]] = None) -> MaskPlan:
        generator = None
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
        return self.mask_planner(
            len(images), images.shape[2:], mask, generator, own_sizes)


def _single_view(inputs: Images) -> Tensor:
    if isinstance(inputs, Tensor):
        return inputs
    if len(inputs) != 1:
        raise ValueError('expected one view of the images, a tensor of shape '
                         '(B, C, H, W) or a list that holds just it, got a '
                         f'list of {len(inputs)}')
    return inputs[0]


def _scale_down(images: Tensor, size: Optional[Tuple[int, int]]) -> Tensor:
    given = images.shape[2:]
    if size is None or given == size:
        return images
    if given[0] < size[0] or given[1] < size[1]:
        raise ValueError(
            f'expected images of at least {size} pixels to scale down, got '
            f'{tuple(given)}; enlarge the crops of the pipeline, or lower the '
            'sizes of ImageSizeHook')
    return F.interpolate(images, size, mode='bilinear', antialias=True)


def _masks_of(data_samples: Optional[List[DataSample]]) -> Optional[Tensor]:
    """Stack the masks of the samples: one if all are equal, else (B, ...)."""
    if not data_samples:
        return None
    # MMSelfSup wraps the mask as `data_sample.mask.value`.
    masks = [
        torch.as_tensor(getattr(sample.mask, 'value', sample.mask))
        for sample in data_samples if 'mask' in sample
    ]
    if not masks:
        return None
    if len(masks) != len(data_samples):
        raise ValueError(
            'expected a mask in every data sample or in none, got '
            f'{len(masks)} masks for {len(data_samples)} samples')
    shapes = {tuple(mask.shape) for mask in masks}
    if len(shapes) > 1:
        raise ValueError('expected masks of one shape in the data samples, '
                         f'got {sorted(shapes)}')
    stacked = torch.stack(masks).cpu()
    return stacked[:1] if bool((stacked == stacked[:1]).all()) else stacked
