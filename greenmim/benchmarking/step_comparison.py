# Copyright (c) greenmim authors. All rights reserved.
"""Compare training steps of GreenMIM and of dense pre-training.

The limit by token count, were everything but the matrix sizes free, is

    dense / (dense backbone * K / L + decoder)

for K of L units visible: a green step cannot be faster than the visible share
of the dense backbone and its own decoder and loss.
"""
import statistics
from typing import Any, Dict, Optional, Sequence

import torch
from mmengine.config import ConfigDict

from greenmim.engine.cost.timing import time_plans
from greenmim.models.masking import num_visible_units
from greenmim.ops import unit_grid
from greenmim.registry import MODELS
from .breakdown import breakdown
from .contenders import green_contenders, other_contenders, variant_contenders
from .pages import STEP_COLUMNS, step_cells
from .results import table
from .steps import Stepper, make_optimizer, peak_memories, take_turns


def compare_steps(cfg: ConfigDict,
                  step: Stepper,
                  scopes: Sequence[str] = ('batch', ),
                  variants: Sequence[str] = (),
                  against: Optional[Sequence[str]] = None,
                  warmup: int = 1,
                  rounds: int = 5,
                  with_optimizer: bool = False,
                  with_breakdown: bool = False) -> dict:
    """Compare time and memory of steps on one batch.

    Args:
        cfg (ConfigDict): The config of a GreenMIM model.
        step (Stepper): Runs a step; it has the batch.
        scopes (Sequence[str]): Mask scopes of GreenMIM, each a contender.
        variants (Sequence[str]): See :func:`.variant_contenders`.
        against (Sequence[str], optional): See :func:`.other_contenders`. If
            none is dense, the first contender is the reference.
        warmup (int): Rounds that do not count.
        rounds (int): Rounds that do.
        with_optimizer (bool): Time a step of fused AdamW, too.
        with_breakdown (bool): Add the share of every kind of work.
    """
    size = tuple(step.images.shape[-2:])
    model = MODELS.build(cfg).to(step.device)
    contenders = green_contenders(model, step.images, scopes)
    contenders += variant_contenders(cfg, step.images, variants)
    contenders += other_contenders(cfg, model, step.images, against)
    timings = take_turns(contenders, step, warmup, rounds, with_optimizer)
    shown = [contender for contender in contenders if not contender.is_part]
    memories = peak_memories(shown, step)

    planner = model.mask_planner
    rows, cols = unit_grid(size, planner.unit_size)
    visible = num_visible_units(rows * cols, planner.mask_ratio)
    decoder = timings['decoder'].median
    result: Dict[str, Any] = dict(
        image_size=size,
        batch_size=len(step.images),
        mask_ratio=planner.mask_ratio,
        visible_units=visible,
        units=rows * cols,
        dtype=step.dtype,
        attention=cfg.backbone.get('attn_backend', 'auto'),
        compile=cfg.backbone.get('compile_blocks', False),
        with_cp=cfg.backbone.get('with_cp', False),
        plan_ahead=step.plan_ahead,
        cudnn_benchmark=torch.backends.cudnn.benchmark,
        decoder_seconds=decoder)
    compared = 'dense backbone' in timings
    reference = shown[0].name if len(shown) > 1 else None
    if compared:
        reference = 'simmim' if 'simmim' in timings else 'dense backbone'
        dense = timings['dense backbone'].median
        fastest = dense * visible / (rows * cols) + decoder
        result['limit'] = timings[reference].median / fastest
    if reference is not None:
        result['reference'] = reference

    result['rows'] = []
    for contender in shown:
        timing = timings[contender.name]
        row = dict(
            name=contender.name,
            seconds=timing.median,
            all_seconds=timing.steps,
            images_per_second=len(step.images) / timing.median,
            peak_memory=memories[contender.name])
        if with_optimizer:
            row['optimizer_seconds'] = statistics.median(timing.optimizer)
        if reference is not None:
            row['ratio'] = timings[reference].median / timing.median
        if contender.name.startswith('greenmim'):
            if compared:
                row['share_of_limit'] = fastest / timing.median
            seconds, plans = time_plans(contender.draw)
            row['planning_seconds'] = statistics.median(seconds)
            row['fill_rate'] = statistics.mean(plan.fill_rate
                                               for plan in plans)
        if with_breakdown:
            row['breakdown'] = breakdown(
                contender, step, make_optimizer if with_optimizer else None)
        result['rows'].append(row)
    return result


def show(result: dict) -> None:
    options = [f'dtype {result["dtype"]}', f'attention {result["attention"]}']
    options += [
        name.replace('_', ' ')
        for name in ('with_cp', 'compile', 'plan_ahead', 'cudnn_benchmark')
        if result[name]
    ]
    height, width = result['image_size']
    print(f'\n{result["config"]}: {height}x{width} px, batch '
          f'{result["batch_size"]}, {", ".join(options)}, '
          f'{result["visible_units"]} of {result["units"]} units visible')
    print(table(STEP_COLUMNS, step_cells(result)))
    if 'limit' in result:
        print(f'limit by token count: {result["limit"]:.2f}x against '
              f'{result["reference"]} (decoder and loss: '
              f'{result["decoder_seconds"]:.3f} s)')
    for row in result['rows']:
        if 'breakdown' in row:
            shares = sorted(row['breakdown'].items(), key=lambda x: -x[1])
            text = ', '.join(f'{kind} {share:.1%}' for kind, share in shares)
            print(f'time of {row["name"]}: {text}')
