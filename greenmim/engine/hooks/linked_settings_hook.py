# Copyright (c) greenmim authors. All rights reserved.
import os.path as osp
import shutil
from typing import Any, List

import torch
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.runner import Runner

from greenmim._mmengine import (adapt_schedulers, loaders_of, model_of,
                                runner_being_built)
from greenmim.registry import HOOKS
from ..screen import show

# Docker's default is 64 MiB, less than a batch of large images.
SHARED_MEMORY = '/dev/shm'
MIN_SHARED_MEMORY = 2**28


@HOOKS.register_module()
class LinkedSettingsHook(Hook):
    """Lets settings follow those on which they depend, with a line each.

    - A run that is shorter than its recipe has a warm-up of the same share:
      ``warm_up = dict(end=40, of=800)`` in the config says that 40 of 800
      epochs are. The schedule after it begins there. A warm-up that was
      changed, too, stays as it is; one that is not shorter than the run is
      shortened to a tenth. Less than two steps are left out.
    - A data loader without workers has neither ``persistent_workers`` nor
      ``prefetch_factor``, and one without a GPU no ``pin_memory``.
    - Automatic mixed precision, which needs a GPU, is left out without one.
    - ``auto_scale_lr`` counts the batches of ``accumulative_counts``.
    - A small ``/dev/shm``, through which data-loading workers send batches,
      is named with what to do.

    Raises:
        ValueError: If ``compile`` would compile the step of a model that draws
            masks, which cannot be.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        runner = runner_being_built()
        if runner is None:
            return
        if runner.cfg.get('compile') not in (None, False) and hasattr(
                model_of(runner), 'mask_planner'):
            raise ValueError(
                'expected no `compile`, by which MMEngine compiles the entire '
                'training step, in which masks are drawn and planned in '
                f'Python, got compile={runner.cfg.compile}; compile the '
                'blocks of the backbone by model.backbone.compile_blocks=True '
                'instead')
        for loader in loaders_of(runner):
            for text in link_loader(loader):
                show(runner.logger, text)
        _leave_out_amp(runner)
        _count_accumulated(runner)
        adapt_schedulers(runner, _shorten_warm_up)

    def before_train(self, runner: Runner) -> None:
        """Check the memory that workers share."""
        if not runner.train_dataloader.num_workers or not osp.isdir(
                SHARED_MEMORY):
            return
        size = shutil.disk_usage(SHARED_MEMORY).total
        if size < MIN_SHARED_MEMORY:
            runner.logger.warning(
                f'{SHARED_MEMORY} has {size / 2**20:.0f} MiB, which may be '
                'too little for the batches of the data-loading workers; '
                'start the container with --shm-size=8g, or train with '
                'train_dataloader.num_workers=0.')


def link_loader(loader: Any) -> List[str]:
    """Make the settings of a data loader fit each other; say what changed.

    Args:
        loader (dict): Its config, which is changed.
    """
    texts = []
    if loader.get('num_workers') == 0:
        unfit = [
            name for name in ('persistent_workers', 'prefetch_factor')
            if loader.get(name)
        ]
        for name in unfit:
            del loader[name]
        if unfit:
            texts.append(f'num_workers=0: without {" and ".join(unfit)}.')
    if loader.get('pin_memory') and not torch.cuda.is_available():
        loader['pin_memory'] = False
    return texts


def _leave_out_amp(runner: Runner) -> None:
    wrapper = runner.optim_wrapper
    if not (isinstance(wrapper, dict) and get_device() in ('cpu', 'mps')
            and wrapper.get('type') == 'AmpOptimWrapper'):
        return
    for name in ('loss_scale', 'dtype', 'use_fsdp'):
        wrapper.pop(name, None)
    wrapper['type'] = 'OptimWrapper'
    runner.logger.warning(
        'Automatic mixed precision needs a GPU and there is none: training in '
        'full precision, with OptimWrapper.')


def _count_accumulated(runner: Runner) -> None:
    wrapper, scaling = runner.optim_wrapper, runner.auto_scale_lr
    if not (isinstance(wrapper, dict) and scaling and scaling.get('enable')):
        return
    counts = wrapper.get('accumulative_counts', 1)
    if counts > 1 and 'base_batch_size' in scaling:
        base = scaling['base_batch_size']
        # MMEngine compares it with the batch of one iteration.
        runner.auto_scale_lr = dict(scaling, base_batch_size=base / counts)
        show(
            runner.logger,
            f'accumulative_counts={counts}: the learning rate is scaled by '
            f'{counts} times the batch size over {base}.')


def _shorten_warm_up(runner: Runner, schedulers: Any) -> Any:
    """Shorten a warm-up, and let begin there what began at its end."""
    if not isinstance(schedulers, list) or not all(
            isinstance(scheduler, dict) for scheduler in schedulers):
        return schedulers
    total, epochs = runner.max_iters, runner.max_epochs
    length = len(runner.train_dataloader)
    recipe = runner.cfg.get('warm_up') or {}
    kept = []
    for warm_up in schedulers:
        end = warm_up.get('end')
        by_epoch = warm_up.get('by_epoch', True)
        unit = 'epochs' if by_epoch else 'iterations'
        steps = epochs if by_epoch else total
        if not _is_warm_up(warm_up):
            share = None
        elif recipe.get('end') == end and steps < recipe.get('of', 0):
            share = end / recipe['of']
            why = (f'The recipe warms up for {end} of {recipe["of"]} {unit}, '
                   f'and this run has {steps}')
        elif len(schedulers) < 2 or end < (total /
                                           length if by_epoch else total):
            share = None
        else:
            share = 0.1
            why = (f'The warm-up of {end} {unit} is not shorter than the run '
                   f'of {steps}')
        if share is None:
            kept.append(warm_up)
            continue
        converted = by_epoch and warm_up.get('convert_to_iter_based')
        short: Any = round((total if converted else steps) * share)
        if short < 2:  # of a single step, the rate would stay low for ever
            short = 0
        elif converted:  # and rounded down by MMEngine
            short = (short + 0.5) / length
        for scheduler in schedulers:
            if scheduler.get('begin') == end:
                scheduler['begin'] = short
        if short:
            warm_up['end'] = short
            kept.append(warm_up)
        show(
            runner.logger, f'{why}: ' +
            (f'it takes {short:.3g} {unit}.' if short else 'it is left out.'))
    return kept


def _is_warm_up(scheduler: dict) -> bool:
    return ('LinearLR' in str(scheduler.get('type'))
            and not scheduler.get('begin') and bool(scheduler.get('end'))
            and scheduler.get('start_factor', 1 / 3) < scheduler.get(
                'end_factor', 1.))
