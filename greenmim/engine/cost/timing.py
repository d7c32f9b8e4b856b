# Copyright (c) greenmim authors. All rights reserved.
"""Time parts of a training step."""
import statistics
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from mmengine.runner import Runner

from greenmim._mmengine import model_of
from greenmim.models.masking.data_samples import image_size, single_view
from greenmim.ops import VisibleLayout
from ..fully_sharded import is_sharded


def synchronize(device: Optional[torch.device] = None) -> None:
    """Wait for the GPU, if there is one and it computes."""
    if torch.cuda.is_available() and (device is None or device.type == 'cuda'):
        torch.cuda.synchronize(device)


def time_plans(draw: Callable[[], Any],
               rounds: int = 20) -> Tuple[List[float], List[Any]]:
    """Draw and plan masks; return the seconds of each plan, and the plans."""
    draw()  # what depends on the grid alone is computed once
    seconds, plans = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        plans.append(draw())
        seconds.append(time.perf_counter() - start)
    return seconds, plans


def time_backbone(runner: Runner,
                  batch: dict,
                  rounds: int = 3) -> Optional[Dict[str, float]]:
    """Time the backbone on visible and on all tokens, alternating.

    All tokens: the same backbone with nothing masked.

    Returns:
        dict[str, float] | None: Median seconds under ``visible`` and
        ``dense``; None where the algorithm computes all tokens anyway, or
        where each process has only a shard of the backbone.
    """
    model = model_of(runner)
    if is_sharded(runner) or not getattr(model, 'visible_only', False):
        return None
    images = single_view(model.data_preprocessor(batch, True)['inputs'])
    planner = model.mask_planner
    visible = planner(len(images), images.shape[2:])
    nothing = torch.zeros_like(visible.layout.visible)
    plans = dict(
        visible=visible,
        dense=planner.group_planner(VisibleLayout.from_mask(nothing)))
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

    Returns:
        dict[str, float] | None: Median ``seconds``, and the share of the group
        slots that hold a token, ``fill_rate``; None where the model masks
        nothing.
    """
    model = model_of(runner)
    if not hasattr(model, 'mask_planner'):
        return None
    number = len(batch['data_samples'])
    size = model.image_size or image_size(batch['inputs'])
    generator = torch.Generator().manual_seed(0)
    seconds, plans = time_plans(
        lambda: model.mask_planner(number, size, None, generator), rounds)
    return dict(
        seconds=statistics.median(seconds),
        fill_rate=statistics.mean(plan.fill_rate for plan in plans))
