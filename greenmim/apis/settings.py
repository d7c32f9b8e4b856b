# Copyright (c) greenmim authors. All rights reserved.
"""Change what matters in the config of a pre-training, in plain words.

A run is counted in iterations, whatever the recipe counts, so that folders
of any size train for the time that they need.
"""
import math
import os
from typing import Any, Dict, Tuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from greenmim.engine.use_data import use_data
from greenmim.registry import DATASETS

# What each word predicts, and the values of a channel in 8 x 8 pixels.
TARGETS: Dict[str, Tuple[Dict[str, Any], int]] = {
    'pixel': (dict(type='greenmim.PixelTarget', norm=False), 64),
    'norm-pixel': (dict(type='greenmim.PixelTarget', norm=True), 64),
    'low-frequency': (dict(type='greenmim.LowFrequencyTarget'), 4),
    'hog': (dict(type='greenmim.HOGTarget'), 9),
}
# Seldom is more gained by fewer checkpoints than is lost by an interruption.
LONGEST_INTERVAL = 5000


def set_data(cfg: Config, data: str) -> Tuple[int, int]:
    """Train on a folder of images or an archive.

    Returns:
        tuple[int]: The number of images to train on, and of those held out.
    """
    pipeline = cfg.train_dataloader.dataset.pipeline
    if not any('Load' in transform['type'] for transform in pipeline):
        # JPEG photographs of a camera are decoded at the smallest scale that
        # leaves the smallest crop its pixels.
        low = crop_of(cfg).get('crop_ratio_range', (1, ))[0]
        side = math.ceil(image_size_of(cfg) / math.sqrt(low))
        pipeline.insert(0, dict(type='greenmim.LoadImage', min_side=side))
    use_data(cfg, data)
    dataset = DATASETS.build(
        dict(cfg.train_dataloader.dataset, pipeline=[], lazy_init=True))
    dataset.data_list = dataset.load_data_list()
    images = len(dataset.data_list)
    kept = len(dataset.filter_data())
    return kept, images - kept


def crop_of(cfg: Config) -> dict:
    """The transform that crops images to the size of training.

    Raises:
        ValueError: If there is none.
    """
    for transform in cfg.train_dataloader.dataset.pipeline:
        if 'Crop' in transform['type']:
            return transform
    raise ValueError('expected a pipeline with a transform that crops, such '
                     'as RandomResizedCrop, got none')


def image_size_of(cfg: Config) -> int:
    """The side of the images in training, in pixels."""
    crop = crop_of(cfg)
    size = crop['scale'] if 'scale' in crop else crop['crop_size']
    return size if isinstance(size, int) else max(size)


def set_image_size(cfg: Config, size: int) -> None:
    """Train on images of another size.

    Raises:
        ValueError: If it is no multiple of the mask unit.
    """
    unit = unit_size_of(cfg)
    if size < unit or size % unit:
        raise ValueError(f'expected an image size that is a multiple of the '
                         f'mask unit, {unit} pixels, got {size}')
    crop = crop_of(cfg)
    for transform in cfg.train_dataloader.dataset.pipeline:
        if transform.get('min_side'):
            transform['min_side'] = math.ceil(transform['min_side'] * size /
                                              image_size_of(cfg))
    crop['scale' if 'scale' in crop else 'crop_size'] = size
    if 'img_size' in cfg.model.backbone:
        cfg.model.backbone.img_size = size


def unit_size_of(cfg: Config) -> int:
    return cfg.model.get('unit_size') or cfg.model.head.get('unit_size', 32)


def set_batch_size(cfg: Config, batch_size: int, devices: int) -> None:
    """Train with ``batch_size`` images on each device.

    The learning rate follows the number of images on all devices, when the
    runner is built. As many workers as there are cores load data.
    """
    cfg.train_dataloader.batch_size = batch_size
    if cfg.get('auto_scale_lr'):
        cfg.auto_scale_lr.enable = True
    cores = len(os.sched_getaffinity(0)) if hasattr(
        os, 'sched_getaffinity') else os.cpu_count() or 1
    cfg.train_dataloader.num_workers = max(1, min(8, cores // devices))


def set_steps(cfg: Config, steps: int) -> None:
    """Train for a number of iterations.

    The learning rate follows the same curve, and hooks that change the
    training in the course of it keep their share of the run.
    """
    old = cfg.train_cfg
    share = steps / (old.get('max_epochs') or old.max_iters)

    def scaled(number: float) -> int:
        return round(number * share)

    scale_schedule(cfg, share)
    for scheduler in cfg.param_scheduler:
        scheduler.by_epoch = False
        scheduler.pop('convert_to_iter_based', None)
    for hook in cfg.default_hooks.values():
        for key in 'milestones', 'until':
            if hook and key in hook:
                value = hook[key]
                hook[key] = (
                    list(map(scaled, value)) if isinstance(
                        value, (list, tuple)) else scaled(value))
                hook['by_epoch'] = False
    cfg.train_cfg = ConfigDict(by_epoch=False, max_iters=steps)
    cfg.log_processor = ConfigDict(
        cfg.get('log_processor') or {}, by_epoch=False)
    cfg.train_dataloader.sampler = ConfigDict(
        type='greenmim.SeededInfiniteSampler', shuffle=True)
    # An iteration-based loop starts its workers before PreemptionHook could
    # protect them from the signals of a scheduler.
    cfg.train_dataloader.worker_init_fn = ConfigDict(
        type='greenmim.leave_signals_to_parent')
    hooks = cfg.default_hooks
    if hooks.get('logger'):
        hooks.logger.interval = max(1, min(50, steps // 20))
    if hooks.get('checkpoint'):
        hooks.checkpoint.by_epoch = False
        hooks.checkpoint.interval = max(
            1, min(LONGEST_INTERVAL, max(100, steps // 20)))


def set_epochs(cfg: Config, epochs: int) -> None:
    """Train for a number of epochs, in a run that is counted in them."""
    scale_schedule(cfg, epochs / cfg.train_cfg.max_epochs)
    cfg.train_cfg.max_epochs = epochs


def scale_schedule(cfg: Config, share: float) -> None:
    """Stretch the curve of the learning rate."""

    def scaled(number: float) -> int:
        return round(number * share)

    for scheduler in cfg.param_scheduler:
        for key in 'begin', 'end':
            if key in scheduler:
                scheduler[key] = scaled(scheduler[key])
        if 'milestones' in scheduler:
            scheduler.milestones = list(map(scaled, scheduler.milestones))
    # A warm-up of no iterations is none.
    cfg.param_scheduler = [
        scheduler for scheduler in cfg.param_scheduler
        if scheduler.get('end') is None or scheduler.end > scheduler.begin
    ]
    if 'warm_up' in cfg:
        cfg.warm_up = ConfigDict({
            key: scaled(number)
            for key, number in cfg.warm_up.items()
        })


def usual_epochs(images: int) -> int:
    """How often a sensible run sees each image.

    1,600 times up to 1,000 images, and half as often for every ten times as
    many: 200 times for a million.
    """
    return round(1600 / 2**math.log10(max(images, 1000) / 1000))


def set_precision(cfg: Config, precision: str) -> str:
    """Set the precision of the forward and backward pass.

    Returns:
        str: What ``'auto'`` has chosen for this machine.

    Raises:
        ValueError: If the machine cannot compute in it.
    """
    gpu = get_device() == 'cuda'
    if precision == 'auto':
        precision = 'fp32'
        if gpu:
            precision = 'bf16' if torch.cuda.is_bf16_supported() else 'fp16'
    if precision == 'fp16' and not gpu:
        raise ValueError('expected --precision fp32 or bf16 without a GPU, '
                         'got fp16')
    wrapper = cfg.optim_wrapper
    for name in ('loss_scale', 'dtype'):
        wrapper.pop(name, None)
    wrapper.type = 'OptimWrapper'
    if precision != 'fp32':
        wrapper.type = 'AmpOptimWrapper' if gpu else (
            'greenmim.BFloat16OptimWrapper')
    if precision == 'bf16' and gpu:
        wrapper.dtype = 'bfloat16'
    return precision


def set_target(cfg: Config, target: str) -> None:
    """Set what is predicted of masked units."""
    if cfg.model.head.type != 'greenmim.GreenMIMHead':
        raise ValueError(
            'expected a recipe with a single target for --target, got the '
            f'head {cfg.model.head.type}; write the target into a config')
    settings, values = TARGETS[target]
    channels = cfg.model.backbone.get('in_channels', 3)
    cfg.model.head.pop('norm_pix', None)
    cfg.model.head.target = ConfigDict(settings)
    cfg.model.neck.out_channels = ((unit_size_of(cfg) // 8)**2 * values *
                                   channels)


def check_positive(**values: Any) -> None:
    """Refuse numbers that are given and not above zero.

    Raises:
        ValueError: Names the first one.
    """
    for name, value in values.items():
        if isinstance(value, (int, float)) and not value > 0:
            option = name.replace('_', '-')
            raise ValueError(f'expected --{option} above 0, got {value}')


def per_device(total: int, devices: int) -> int:
    """The images of each device.

    Raises:
        ValueError: If the images cannot be shared equally.
    """
    if total < devices or total % devices:
        raise ValueError(f'expected a batch size that is a multiple of '
                         f'{devices} devices, got {total}')
    return total // devices
