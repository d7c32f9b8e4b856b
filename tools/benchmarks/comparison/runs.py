# Copyright (c) greenmim authors. All rights reserved.
"""Pre-training and fine-tuning by MMEngine's runner."""
import json
import time
import uuid
from pathlib import Path
from typing import Tuple

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from torch import nn

from greenmim.engine.launch import build_runner


def read_config(path: str, options: dict, seed: int, work_dir: Path) -> Config:
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options)
    cfg.randomness.seed = seed
    cfg.launcher = 'none'
    cfg.work_dir = str(work_dir)
    # Runs of one process that share a name share their history.
    cfg.experiment_name = uuid.uuid4().hex
    return cfg


def pretrain(cfg: Config, classifier: Config, out: Path) -> dict:
    """Pre-train and write the weights of the classifier's backbone.

    Args:
        cfg (Config): The pre-training.
        classifier (Config): The fine-tuning.
        out (Path): The file to write.
    """
    runner, result = train(cfg)
    save_backbone(runner.model.backbone, classifier, out)
    return result


def fine_tune(cfg: Config) -> dict:
    """Fine-tune, then test."""
    runner, result = train(cfg)
    result['accuracy'] = runner.test()['accuracy/top1']
    return result


def train(cfg: Config) -> Tuple[Runner, dict]:
    """Train, and say how long it took and how the loss fell."""
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
    given = pretrained.state_dict()
    expected = MODELS.build(classifier.model.backbone).state_dict()
    faults = [
        name for name in expected
        if name not in given or given[name].shape != expected[name].shape
    ]
    faults += [
        name for name in given
        if name not in expected and not name.endswith('mask_token')
    ]
    if faults:
        raise ValueError(
            'expected the backbone of the pre-training to be that of '
            f'{classifier.filename}, but these tensors differ: '
            f'{", ".join(faults)}; pre-train and fine-tune one architecture')
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: given[name].cpu() for name in expected}, out)
