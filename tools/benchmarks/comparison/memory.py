# Copyright (c) greenmim authors. All rights reserved.
"""The memory of a training step, measured as the benchmarks do."""
import gc
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor

from greenmim.engine.launch import build_runner

sys.path.append(str(Path(__file__).parents[2] / 'analysis_tools'))
from benchmarking.contenders import Contender  # noqa: E402
from benchmarking.measure import Stepper, peak_memory  # noqa: E402


def memory_of_step(cfg: Config) -> int:
    """Bytes that a model and a step on a batch of its data need at once.

    These are weights, activations, gradients and temporary tensors, without
    the optimizer's state, which is the same whatever is computed.

    Args:
        cfg (Config): Config of a pre-training.
    """
    gc.collect()  # the models of earlier runs, which a GPU would count
    runner = build_runner(cfg)
    model = runner.model
    model.init_weights()
    model.train()
    optim_wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    batch = next(iter(runner.build_dataloader(cfg.train_dataloader)))
    batch = model.data_preprocessor(batch, True)

    def loss(images: Tensor, mask: None) -> Tensor:
        with optim_wrapper.optim_context(model):
            return model.parse_losses(model(**batch, mode='loss'))[0]

    step = Stepper(torch.empty(0, device=get_device()))
    return peak_memory(Contender('', model, loss), step)
