# Copyright (c) greenmim authors. All rights reserved.
"""Gradients between two updates, for runs that accumulate them."""
from typing import Dict

import torch
from mmengine.dist import all_reduce
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor
from torch.distributed.tensor import DTensor

from greenmim._mmengine import model_of
from .fully_sharded import cut_tensor


def accumulated_gradients(runner: Runner) -> Dict[str, Tensor]:
    """The gradients of a model that the next iteration adds to, by name.

    They are the mean over the processes, on the CPU; all processes have to
    call this. Empty right after an update.
    """
    wrapper = runner.optim_wrapper
    if not isinstance(wrapper, OptimWrapper) or wrapper.should_update():
        return {}
    found = {}
    for name, parameter in model_of(runner).named_parameters():
        gradient = parameter.grad
        if gradient is None:
            continue
        if isinstance(gradient, DTensor):  # the mean already
            gradient = gradient.full_tensor()
        else:
            gradient = gradient.detach().clone()
            all_reduce(gradient, 'mean')
        found[name] = gradient.cpu()
    return found


@torch.no_grad()
def set_gradients(runner: Runner, gradients: Dict[str, Tensor]) -> None:
    """Set the gradients of a model, to which the next iteration adds.

    Args:
        runner (Runner): The run.
        gradients (dict[str, Tensor]): As :func:`accumulated_gradients`
            returns them.
    """
    for name, parameter in model_of(runner).named_parameters():
        if name in gradients:
            gradient = gradients[name].to(parameter.device)
            parameter.grad = cut_tensor(gradient, parameter)
