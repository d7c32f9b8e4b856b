# Copyright (c) greenmim authors. All rights reserved.
"""Parts of a training step, timed by themselves."""
import statistics
import time
from typing import Any, Dict, List, Optional

import torch
from mmengine.runner import Runner


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_backbone(runner: Runner,
                  batch: dict,
                  rounds: int = 3) -> Optional[Dict[str, float]]:
    """Time the backbone on visible and on all tokens, taking turns.

    All tokens: the same backbone with nothing masked.

    Args:
        runner (Runner): Its model has been trained.
        batch (dict): A batch of the data loader.
        rounds (int): Forward and backward passes of each. Defaults to 3.

    Returns:
        dict[str, float] | None: Median seconds under ``visible`` and
        ``dense``; None where the algorithm computes all tokens anyway.
    """
    model = getattr(runner.model, 'module', runner.model)
    if not getattr(model, 'visible_only', False):
        return None
    images = _images(model.data_preprocessor(batch, True))
    planner = model.mask_planner
    visible = planner(len(images), images.shape[2:])
    nothing = torch.zeros_like(visible.layout.visible)
    plans = dict(
        visible=visible,
        dense=planner.group_planner(nothing, nothing.shape[1:]))
    times: Dict[str, List[float]] = dict(visible=[], dense=[])
    random_state = torch.get_rng_state()
    for turn in range(rounds + 1):
        for name, plan in plans.items():
            model.zero_grad(set_to_none=True)
            synchronize()
            start = time.perf_counter()
            with runner.optim_wrapper.optim_context(model):
                loss = model.backbone(images, plan).float().square().mean()
            loss.backward()
            synchronize()
            if turn:
                times[name].append(time.perf_counter() - start)
    model.zero_grad(set_to_none=True)
    torch.set_rng_state(random_state)
    return {name: statistics.median(values) for name, values in times.items()}


def time_planning(runner: Runner,
                  batch: dict,
                  rounds: int = 5) -> Optional[Dict[str, float]]:
    """Time drawing and planning the masks of a batch, in this process.

    Args:
        runner (Runner): Its model masks images.
        batch (dict): A batch of the data loader.
        rounds (int): Plans. Defaults to 5.

    Returns:
        dict[str, float] | None: Median ``seconds``, and the share of the group
        slots that hold a token, ``fill_rate``; None where the model masks
        nothing.
    """
    model = getattr(runner.model, 'module', runner.model)
    if not hasattr(model, 'mask_planner'):
        return None
    images = _images(batch)
    size = getattr(model, 'image_size', None) or images[0].shape[-2:]
    generator = torch.Generator().manual_seed(0)
    model.mask_planner(len(images), size, None, generator)  # the grid's part
    times, fill_rates = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        plan = model.mask_planner(len(images), size, None, generator)
        times.append(time.perf_counter() - start)
        fill_rates.append(plan.fill_rate)
    return dict(
        seconds=statistics.median(times),
        fill_rate=statistics.mean(fill_rates))


def _images(batch: dict) -> Any:
    """The images of a batch, of which MMSelfSup makes a list of views."""
    images = batch['inputs']
    if isinstance(images, (list, tuple)) and isinstance(
            images[0], torch.Tensor) and images[0].ndim == 4:
        return images[0]
    return images
