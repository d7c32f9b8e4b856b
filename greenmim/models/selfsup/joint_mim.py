# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Dict, List

from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from greenmim.registry import MODELS
from ..masking import MaskPlanner
from .masked_image_modeling import MaskedImageModeling


@MODELS.register_module()
class JointMIM(ImageClassifier):
    r"""Fine-tuning with masked image modelling beside the labels.

    A classifier whose loss is

    .. math:: 0.1\, L_\text{classes} + 0.9\, L_\text{masked units}

    on the same images, for labelled sets that are small (`Das et al., WACV
    2024 <https://arxiv.org/abs/2310.20704>`_, whose weights these are). The
    classes are predicted from the whole image, the masked units from the
    visible ones alone. In all else it is an image classifier: the weights of
    backbone and head have the classifier's names, and those of ``mim`` are
    left out where it is loaded as one.

    The backbone runs twice in a step, once on all units, so a step costs that
    of a classifier and that of a pre-training.

    Args:
        mim (dict): Config of the algorithm without its backbone, such as
            ``dict(type='greenmim.GreenMIM', neck=..., head=...,
            mask_ratio=0.75)``.
        weights (dict): Weights of the two losses. Defaults to
            ``dict(classes=0.1, mim=0.9)``.
        **kwargs: See ``mmpretrain.ImageClassifier``.

    Raises:
        ValueError: If ``mim`` brings a backbone or is no algorithm of this
            project, or the weights are others than these two.
    """

    def __init__(self,
                 mim: dict,
                 weights: Dict[str, float] = dict(classes=0.1, mim=0.9),
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if set(weights) != {'classes', 'mim'} or min(weights.values()) < 0:
            raise ValueError('expected weights of 0 or more for classes and '
                             f'mim, got {weights}')
        if 'backbone' in mim:
            raise ValueError('expected a config of `mim` without a backbone, '
                             "since it shares the classifier's")
        self.weights = dict(weights)
        self.mim = MODELS.build(dict(mim, backbone=self.backbone))
        if not isinstance(self.mim, MaskedImageModeling):
            raise ValueError('expected an algorithm of this project as `mim`, '
                             "type='greenmim.GreenMIM' for example, got "
                             f'{type(self.mim).__name__}')
        # The same module, registered once, by the classifier.
        del self.mim.backbone
        self.mim.__dict__['backbone'] = self.backbone
        # The preprocessor is the classifier's.
        self.mim.data_preprocessor = nn.Identity()

    @property
    def mask_planner(self) -> MaskPlanner:
        """What draws and plans the masks."""
        return self.mim.mask_planner

    def loss(self, inputs: Tensor,
             data_samples: List[DataSample]) -> Dict[str, Tensor]:
        """Classify the images, and predict their masked units.

        Args:
            inputs (Tensor): Preprocessed images, (B, C, H, W).
            data_samples (list[DataSample]): Their labels; masks and seeds as
                for :meth:`.MaskedImageModeling.prepare`.

        Returns:
            dict[str, Tensor]: The weighted losses ``loss_classes`` and
            ``loss_mim``, and what else the head returns.
        """
        losses: Dict[str, Tensor] = {}
        for name, value in super().loss(inputs, data_samples).items():
            if 'loss' in name:
                name = 'loss_classes' if name == 'loss' else name
                value = self.weights['classes'] * value
            losses[name] = value
        mim = self.mim.loss(inputs, data_samples)['loss']
        losses['loss_mim'] = self.weights['mim'] * mim
        return losses
