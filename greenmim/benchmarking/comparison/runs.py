# Copyright (c) greenmim authors. All rights reserved.
"""Training runs of MMEngine's runner: their results, time and memory."""
import gc
import json
import statistics
import time
import uuid
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from torch import nn

from greenmim.engine.cost.memory import step_memory
from greenmim.engine.cost.timing import synchronize
from greenmim.engine.launch import build_runner
from greenmim.weights.coverage import Coverage

WARMUP, TIMED, ROUNDS = 5, 20, 3


def read_config(path: str, options: dict, seed: int, work_dir: Path) -> Config:
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options)
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
    cfg.launcher = 'none'
    hooks = cfg.setdefault('default_hooks', {})
    hooks.setdefault('progress', dict(type='greenmim.ProgressHook'))
    cfg.overwrite = True  # what an interrupted run of this name left
    cfg.work_dir = str(work_dir)
    # Runs of one process that share a name share their history.
    cfg.experiment_name = uuid.uuid4().hex
    return cfg


def train(cfg: Config) -> Tuple[Runner, dict]:
    """Train; the result has the time that it took and the losses."""
    runner = build_runner(cfg)
    start, cpu_start = time.perf_counter(), time.process_time()
    runner.train()
    seconds = time.perf_counter() - start
    scalars = Path(runner.log_dir, 'vis_data', 'scalars.json')
    lines = map(json.loads, scalars.read_text('utf-8').splitlines())
    iterations = runner.max_iters
    result = dict(
        config=Path(cfg.filename).name,
        iterations=iterations,
        images=iterations * cfg.train_dataloader.batch_size,
        seconds=seconds,
        # Of this process, without data-loading workers: what a shared CPU
        # gave to the run.
        cpu_seconds=time.process_time() - cpu_start,
        loss=[[line['step'], line['loss']] for line in lines
              if 'loss' in line])
    return runner, result


def save_backbone(pretrained: nn.Module, classifier: Config,
                  out: Path) -> None:
    """Write what the classifier's backbone needs, every tensor of it.

    Raises:
        ValueError: If the backbones differ in more than a mask token.
    """
    given = {
        name: tensor.cpu()
        for name, tensor in pretrained.state_dict().items()
        if not name.endswith('mask_token')
    }
    expected = MODELS.build(classifier.model.backbone).state_dict()
    Coverage.compare('backbone', expected, given).require(
        f'a pre-training of the backbone of {classifier.filename}, since one '
        'architecture is pre-trained and fine-tuned')
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(given, out)


def seconds_per_iteration(
        cfgs: Dict[str, Config],
        timer: Optional[Callable[[], float]] = None) -> Dict[str, float]:
    """The median times of iterations of real runs, loading of data included.

    The runs take turns, so that what else the machine does hits them alike.
    Every turn restarts its data loading and lets some iterations pass: no run
    profits from images that were loaded during the turns of others.

    Args:
        cfgs (dict[str, Config]): Configs by name.
        timer (Callable, optional): Defaults to None, :func:`clock`.
    """
    timer = timer or clock
    ready = {name: _ready_to_train(cfg) for name, cfg in cfgs.items()}
    seconds: Dict[str, List[float]] = {name: [] for name in cfgs}
    for _ in range(ROUNDS):
        for name, (runner, optim_wrapper) in ready.items():
            # They may be of different libraries.
            with DefaultScope.overwrite_default_scope(
                    runner.default_scope.scope_name):
                loader = runner.build_dataloader(cfgs[name].train_dataloader)
                batches = iter(loader)
                for step in range(WARMUP + TIMED):
                    start = timer()
                    runner.model.train_step(next(batches), optim_wrapper)
                    if step >= WARMUP:
                        seconds[name].append(timer() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def _ready_to_train(cfg: Config) -> Tuple[Runner, OptimWrapper]:
    runner = build_runner(cfg)
    optim_wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    runner.model.init_weights()
    runner.model.train()
    return runner, optim_wrapper


def clock() -> float:
    """Wall-clock seconds, or without a GPU the CPU seconds of the process.

    On one thread and an idle machine the two are equal; other work on the
    machine does not lengthen the latter.
    """
    if torch.cuda.is_available():
        synchronize()
        return time.perf_counter()
    return time.process_time()


def memory_of_step(cfg: Config) -> int:
    """Bytes that a model and a step on a batch of its data need at once."""
    gc.collect()  # the models of earlier runs, which a GPU would count
    runner, optim_wrapper = _ready_to_train(cfg)
    model = runner.model
    batch = next(iter(runner.build_dataloader(cfg.train_dataloader)))
    batch = model.data_preprocessor(batch, True)

    def step() -> None:
        with optim_wrapper.optim_context(model):
            loss = model.parse_losses(model(**batch, mode='loss'))[0]
        loss.backward()

    return step_memory(model, step, torch.device(get_device()))
