# Copyright (c) greenmim authors. All rights reserved.
"""What the algorithms share.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from typing import Any, Dict, List, Optional, Tuple, Union

import torch
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.nn import functional as F

from greenmim.ops import GroupPlanner, MaskPlan, VisibleLayout
from greenmim.registry import TASK_UTILS
from ..masking import MaskPlanner
from ..masking.data_samples import (Images, plan_masks, read_cached_targets,
                                    read_own_sizes, single_view)
from ..necks import Neck
from ..target_generators import Target, fill_from_neighbours, naive_fillings
from ..utils import Encoded


class MaskedImageModeling(BaseSelfSupervisor):
    """Mask images, encode them, predict the masked units, and compare.

    The base class of the algorithms, which differ in how they encode a masked
    image (:meth:`encode`). Mask sampler, backbone, decoder (neck) and target
    (head) are chosen by the config.

    If :attr:`image_size` is set, which
    :class:`greenmim.engine.ImageSizeHook` does, images are first scaled down
    to it, in training mode only.

    Masks are drawn on the CPU, from the ``mask_seed`` of the first data
    sample or from torch's global generator, unless the data samples have
    masks; those on a device cost one copy. The sides of images are multiples
    of the mask unit; :func:`greenmim.datasets.padding_collate` pads a batch
    of any sizes accordingly.

    Args:
        backbone (dict | nn.Module): The encoder.
        neck (dict | nn.Module): The decoder, which predicts the values of all
            units: a :class:`greenmim.models.Neck`, or any module with
            ``forward(latent, mask)``.
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
    """Whether the encoder computes the visible units only."""

    image_size: Optional[Tuple[int, int]] = None
    """Height and width in pixels to train with; None keeps that of images."""

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
        self.mask_planner = MaskPlanner(self.make_planner(), self.unit_size,
                                        mask_ratio, mask_scope,
                                        TASK_UTILS.build(mask_sampler))
        for module in self.head.modules():
            if isinstance(module, Target):
                module.attach(self)

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels."""
        raise NotImplementedError

    def make_planner(self) -> GroupPlanner:
        """The planner of the backbone."""
        return GroupPlanner(())

    def encode(self, images: Tensor, plan: MaskPlan) -> Encoded:
        """Encode images (B, C, H, W) masked by a plan."""
        raise NotImplementedError

    def decode(self, encoded: Encoded) -> Tensor:
        """Predict the values of all units, (B, L, D)."""
        if isinstance(self.neck, Neck):
            return self.neck.decode(encoded)
        return self.neck(encoded.latent, encoded.layout)

    def extract_feat(self,
                     inputs: Images) -> Union[Tensor, Tuple[Tensor, ...]]:
        """Dense features of unmasked images, the backbone's own output.

        Returns:
            tuple[Tensor, ...]: Feature maps (B, C_i, H_i, W_i).
        """
        return self.backbone(single_view(inputs))

    def loss(self, inputs: Images,
             data_samples: Optional[List[DataSample]]) -> Dict[str, Tensor]:
        """Mask a batch of images, predict the masked units, and compare.

        See :meth:`prepare` for the arguments.

        Returns:
            dict[str, Tensor]: The loss under the key ``loss``.
        """
        images, plan = self.prepare(inputs, data_samples)
        pred = self.decode(self.encode(images, plan))
        cached = read_cached_targets(data_samples or (),
                                     getattr(self.head, 'target_key', ''))
        target = () if cached is None else (cached, )
        return dict(loss=self.head.loss(pred, images, plan.layout, *target))

    def prepare(
        self,
        inputs: Images,
        data_samples: Optional[List[DataSample]] = None
    ) -> Tuple[Tensor, MaskPlan]:
        """Scale the images of a batch to :attr:`image_size`, plan the masks.

        Args:
            inputs (Tensor | list[Tensor]): Images of shape (B, C, H, W), or
                a list of one such tensor, as MMSelfSup passes them.
            data_samples (list[DataSample], optional): Their plan, masks or
                seed decide what is masked, and ``own_sizes`` what is padding;
                see :mod:`greenmim.models.masking.data_samples`.

        Returns:
            tuple[Tensor, MaskPlan]: The images, and the plan of their masks.

        Raises:
            ValueError: If the images' sides are no multiples of the mask
                unit, the images are smaller than :attr:`image_size`, or the
                masks do not fit the images.
        """
        images = single_view(inputs)
        samples = data_samples or ()
        if self.training and self.image_size is not None:
            if read_own_sizes(samples) is not None:
                raise ValueError(
                    'expected images of one size to scale down, got a padded '
                    'batch; use either ImageSizeHook or padding_collate')
            images = _scale_down(images, self.image_size)
        plan = plan_masks(self.mask_planner, samples, len(images),
                          images.shape[2:])
        return images, plan

    @torch.no_grad()
    def reconstruct(self,
                    inputs: Images,
                    mask: Optional[Union[Tensor, VisibleLayout]] = None,
                    width: float = 0.5) -> Dict[str, Any]:
        """Reconstruct images, ready to be drawn.

        Call ``eval()`` first: dropout and drop path depend on the mode.
        Masked pixels affect no value but those of ``target`` and
        ``drawn_target``: where the target is normalised unit by unit, mean
        and deviation of masked units are guessed from visible ones by
        ``fill_from_neighbours``.

        Args:
            inputs (Tensor | list[Tensor]): Preprocessed images of shape
                (B, C, H, W), or a list that holds just them.
            mask (Tensor | VisibleLayout, optional): Bool of shape
                (B, Gh, Gw), or (1, Gh, Gw) for one mask shared by the batch,
                True = masked. Defaults to None, a mask is drawn.
            width (float): Of the smooth interpolation, in units. Defaults to
                0.5.

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
            - ``pred_uses_neighbour_statistics``: True if the target is
                normalised, so that ``pred`` has been scaled and shifted, unit
                by unit, by statistics guessed from visible units.
            - ``known`` and ``drawn_known``: As ``target`` and
                ``drawn_target``, of the images with masked units filled from
                visible ones, for brightness and contrast of the pictures.
            - ``naive``: Predictions without a model, drawn as ``pred`` is, by
                name: the mean of the visible pixels, and a smooth
                interpolation of the means of visible units. Empty where
                ``pred`` is no image.

        Raises:
            ValueError: As :meth:`loss`, or if the target cannot be drawn.
        """
        images = single_view(inputs)
        plan = self.mask_planner(len(images), images.shape[2:], mask)
        layout = plan.layout
        pred = self.decode(self.encode(images, plan))
        size = self.unit_size
        masked = layout.masked[:, None]
        masked = masked.repeat_interleave(size, 2).repeat_interleave(size, 3)
        known = fill_from_neighbours(images, layout, size)
        target = self.head.target
        naive = {}
        if target.draws_images:
            naive = {
                name: self.head.draw_target(filled)
                for name, filled in naive_fillings(images, layout, size,
                                                   width).items()
            }
        return dict(
            pred=self.head.to_images(pred, known),
            target=images,
            drawn_target=self.head.draw_target(images),
            mask=masked.to(images.device).expand(images.shape[0], -1, -1, -1),
            pred_is_image=target.draws_images,
            pred_uses_neighbour_statistics=target.uses_target_statistics,
            known=known,
            drawn_known=self.head.draw_target(known),
            naive=naive)


def _scale_down(images: Tensor, size: Tuple[int, int]) -> Tensor:
    given = images.shape[2:]
    if given == size:
        return images
    if given[0] < size[0] or given[1] < size[1]:
        raise ValueError(
            f'expected images of at least {size} pixels to scale down, got '
            f'{tuple(given)}; enlarge the crops of the pipeline, or lower the '
            'sizes of ImageSizeHook')
    return F.interpolate(images, size, mode='bilinear', antialias=True)
