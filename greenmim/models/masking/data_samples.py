# Copyright (c) greenmim authors. All rights reserved.
"""What concerns masks and images in the inputs and data samples of a batch.

It is all meta information, unless said otherwise:

- ``mask``, of every sample or of none: bool (Gh, Gw) with True = masked, or a
  finer mask that hides whole units; made by the pipeline, meta information or
  data. MMSelfSup wraps it as ``mask.value``.
- ``mask_seed``, of every sample: the seed of the mask, set by seeded data
  sets. The first sample's seed is that of the batch.
- ``mask_plan``, of the first sample: the :class:`~greenmim.ops.MaskPlan` of
  the batch, made by the data-loading workers.
- ``own_sizes``, of the first sample: height and width of every image before
  ``padding_collate`` padded it. Missing where nothing is padded.
- ``cached_target``, of every sample or of none: the values of its units,
  (L, D), made before the training; data, so that it moves to the device. With
  ``target_key``, meta information, which names the target that made them.
- ``skipped_images``, of a sample that replaces unreadable files: the reason
  for each file.
- ``short_crop``, of a sample whose image was smaller than a crop: the
  transform, and the image's height and width.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from greenmim.ops import MaskPlan
from greenmim.ops.mask_unit import Grid
from .planner import MaskPlanner

Images = Union[Tensor, Sequence[Tensor]]
Samples = Sequence[BaseDataElement]


def single_view(inputs: Images) -> Tensor:
    """Images (B, C, H, W), which MMSelfSup puts into a list of one view."""
    if isinstance(inputs, Tensor):
        return inputs
    if len(inputs) != 1:
        raise ValueError('expected one view of the images, a tensor of shape '
                         '(B, C, H, W) or a list that holds just it, got a '
                         f'list of {len(inputs)}')
    return inputs[0]


def image_size(inputs: Any) -> Tuple[int, int]:
    """Height and width of collated images: a tensor, or lists of tensors."""
    while isinstance(inputs, (list, tuple)):
        inputs = inputs[0]
    return inputs.shape[-2], inputs.shape[-1]


def write_seed(sample: BaseDataElement, seed: int) -> None:
    """Set the seed of a sample's mask."""
    sample.set_metainfo(dict(mask_seed=seed))


def read_seed(samples: Samples) -> Optional[int]:
    """The seed of a batch's masks."""
    return _read_first(samples, 'mask_seed')


def write_plan(samples: Samples, plan: MaskPlan) -> None:
    """Set the plan of a batch."""
    samples[0].set_metainfo(dict(mask_plan=plan))


def read_plan(samples: Samples) -> Optional[MaskPlan]:
    """The plan of a batch."""
    return _read_first(samples, 'mask_plan')


def write_own_sizes(samples: Samples, sizes: List[Grid]) -> None:
    """Set heights and widths of a batch's images before padding."""
    samples[0].set_metainfo(dict(own_sizes=sizes))


def read_own_sizes(samples: Samples) -> Optional[List[Grid]]:
    """Heights and widths of a batch's images before padding."""
    return _read_first(samples, 'own_sizes')


def write_skipped_images(sample: BaseDataElement, reasons: Dict[str,
                                                                str]) -> None:
    """Set the unreadable files that a sample replaces."""
    sample.set_metainfo(dict(skipped_images=reasons))


def read_skipped_images(sample: BaseDataElement) -> Dict[str, str]:
    """The unreadable files that a sample replaces, and the reasons."""
    return sample.get('skipped_images', {})


def write_cached_target(sample: BaseDataElement, target: Tensor,
                        key: str) -> None:
    """Set the values (L, D) of a sample's units, and what made them."""
    sample.set_field(target, 'cached_target', dtype=Tensor)
    sample.set_metainfo(dict(target_key=key))


def read_cached_targets(samples: Samples, key: str) -> Optional[Tensor]:
    """The values of all units that were made before, (B, L, D), if any.

    Args:
        samples (Sequence[BaseDataElement]): The data samples of a batch.
        key (str): The name of the target that the model would compute.

    Raises:
        ValueError: If another target made them.
    """
    cached = [x.cached_target for x in samples if 'cached_target' in x]
    if not cached:
        return None
    if len(cached) != len(samples) or samples[0].target_key != key:
        raise ValueError(
            'expected cached targets of the target in the config, got those '
            f'of {samples[0].target_key!r} for {len(cached)} of '
            f'{len(samples)} images, and the target is {key!r}; make the '
            'cache again with tools/misc/cache_targets.py, or train without')
    return torch.stack(cached)


def write_short_crop(sample: BaseDataElement, short: Tuple[str, Grid]) -> None:
    """Set the crop that was larger than a sample's image."""
    sample.set_metainfo(dict(short_crop=short))


def read_short_crop(sample: BaseDataElement) -> Optional[Tuple[str, Grid]]:
    """The crop that was larger than a sample's image, and its size."""
    return sample.get('short_crop')


def read_masks(samples: Samples) -> Optional[Tensor]:
    """The masks that the pipeline made, if any, (B, rows, columns) on the CPU.

    If all are equal, there is one, (1, rows, columns).
    """
    wrapped = [sample.mask for sample in samples if 'mask' in sample]
    if not wrapped:
        return None
    if len(wrapped) != len(samples):
        raise ValueError(
            'expected a mask in every data sample or in none, got '
            f'{len(wrapped)} masks for {len(samples)} samples')
    masks = [torch.as_tensor(_unwrap(mask)) for mask in wrapped]
    shapes = {tuple(mask.shape) for mask in masks}
    if len(shapes) > 1:
        raise ValueError('expected masks of one shape in the data samples, '
                         f'got {sorted(shapes)}')
    stacked = torch.stack(masks).cpu()
    return stacked[:1] if bool((stacked == stacked[:1]).all()) else stacked


def read_fields(
        sample: BaseDataElement) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Meta information and data of a sample, without the batch's plan.

    With the masks of that plan they make an equal sample.
    """
    metainfo, data = ({
        key: _unwrap(value)
        for key, value in items if key != 'mask_plan'
    } for items in (sample.metainfo_items(), sample.items()))
    return metainfo, data


def plan_masks(planner: MaskPlanner,
               samples: Samples,
               num_images: int,
               size: Sequence[int],
               generator: Optional[torch.Generator] = None) -> MaskPlan:
    """The plan of a batch of ``num_images`` of ``size`` (height and width).

    The first of these that the data samples have decides: the plan of the
    batch, the masks of the samples, the seed of the first sample. If they
    have none of them, masks are drawn from ``generator``, by default torch's
    global one.

    Raises:
        ValueError: If the masks do not fit the images or each other.
    """
    plan = read_plan(samples)
    if plan is not None:
        return plan
    seed = read_seed(samples)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
    return planner(num_images, size, read_masks(samples), generator,
                   read_own_sizes(samples))


def _unwrap(value: Any) -> Any:
    """What MMSelfSup wraps in a data element of its own."""
    if isinstance(value, BaseDataElement):
        return getattr(value, 'value', value)
    return value


def _read_first(samples: Samples, name: str) -> Any:
    return samples[0].get(name) if len(samples) else None
