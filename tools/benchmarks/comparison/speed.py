# Copyright (c) greenmim authors. All rights reserved.
"""How long an iteration of each pre-training takes, measured in turns."""
import statistics
import time
from typing import Callable, Dict, List

import torch
from mmengine.config import Config

from greenmim.engine.launch import build_runner

WARMUP, TIMED, ROUNDS = 5, 20, 3


def seconds_per_iteration(cfgs: Dict[str, Config]) -> Dict[str, float]:
    """Time iterations of real runs, loading of the data included.

    The runs take turns, so that what else the machine does hits them alike.
    Every turn starts its data loading anew and lets some iterations pass: no
    run profits from images that were loaded during the turns of others.

    Args:
        cfgs (dict[str, Config]): Configs of the runs, by name.

    Returns:
        dict[str, float]: The median over all rounds, by name.
    """
    turns = {name: _turn_of(cfg) for name, cfg in cfgs.items()}
    seconds: Dict[str, List[float]] = {name: [] for name in turns}
    for _ in range(ROUNDS):
        for name, turn in turns.items():
            seconds[name] += turn()
    return {name: statistics.median(times) for name, times in seconds.items()}


def _turn_of(cfg: Config) -> Callable[[], List[float]]:
    runner = build_runner(cfg)
    optim_wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    runner.model.init_weights()
    runner.model.train()

    def turn() -> List[float]:
        times = []
        batches = iter(runner.build_dataloader(cfg.train_dataloader))
        for _ in range(WARMUP + TIMED):
            start = clock()
            runner.model.train_step(next(batches), optim_wrapper)
            times.append(clock() - start)
        return times[WARMUP:]

    return turn


def clock() -> float:
    """Seconds on the clock, or without a GPU those of the process's CPU time.

    On one thread and an idle machine the two are equal; other work on the
    machine does not lengthen the latter.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
