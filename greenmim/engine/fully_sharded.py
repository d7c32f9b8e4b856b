# Copyright (c) greenmim authors. All rights reserved.
"""Parameters, gradients and optimizer state sharded over processes.

FSDP2 (``fully_shard``) keeps a shard of each in every process, and gathers
the parameters of a layer when it runs. Checkpoints are those of a single
process: gathered when they are saved, sharded when they are loaded.
"""
from typing import Any, Callable, Dict, List, TypeVar, Union

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor

from greenmim.registry import MODEL_WRAPPERS

try:
    from torch.distributed.fsdp import (fully_shard,
                                        register_fsdp_forward_method)
except ImportError:  # PyTorch 2.5
    from torch.distributed._composable.fsdp import (
        fully_shard, register_fsdp_forward_method)

Result = TypeVar('Result')


@MODEL_WRAPPERS.register_module()
class FullyShardedModel(nn.Module):
    """Wraps a model as ``MMDistributedDataParallel`` does.

    The linear layers of every block are gathered together, since the masked
    forward calls them and not the block. The few other parameters (norms,
    bias tables, tokens) are gathered for the entire step.

    Args:
        module (BaseModel): The model.
        initialize (bool): Whether its weights are initialized, which a test
            does not need. Defaults to True.
        **kwargs: Arguments of ``DistributedDataParallel``, which are ignored.
    """

    def __init__(self,
                 module: BaseModel,
                 initialize: bool = True,
                 **kwargs: Any) -> None:
        super().__init__()
        # Initialization needs the shapes of the entire parameters.
        if initialize:
            module.init_weights()
        for tensor in module.state_dict().values():
            torch.distributed.broadcast(tensor, 0)
        device = next(module.parameters()).device.type
        world = torch.distributed.get_world_size()
        mesh = init_device_mesh(device, (world, ))
        for block in _blocks(module):
            layers: List[nn.Module] = [
                m for m in block.modules() if isinstance(m, nn.Linear)
            ]
            if layers:
                fully_shard(layers, mesh=mesh)
        fully_shard(module, mesh=mesh)
        module.call_gathered = lambda function: function()
        register_fsdp_forward_method(module, 'call_gathered')
        self.module = module

    def train_step(self, data: Union[dict, tuple, list],
                   optim_wrapper: OptimWrapper) -> Dict[str, Tensor]:
        """See :meth:`mmengine.model.BaseModel.train_step`."""
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: Union[dict, tuple, list]) -> list:
        """See :meth:`mmengine.model.BaseModel.val_step`."""
        results = self.module.val_step(data)
        self.module.reshard()  # as the backward pass does in training
        return results

    def test_step(self, data: Union[dict, tuple, list]) -> list:
        """See :meth:`mmengine.model.BaseModel.test_step`."""
        results = self.module.test_step(data)
        self.module.reshard()
        return results

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Forward of the module."""
        return self.module(*args, **kwargs)


def _blocks(model: nn.Module) -> List[nn.Module]:
    """The innermost repeated modules: members of lists without lists."""
    return [
        block for name, modules in model.named_modules()
        if isinstance(modules, nn.ModuleList) for block in modules
        if not any(isinstance(m, nn.ModuleList) for m in block.modules())
    ]


def is_sharded(runner: Runner) -> bool:
    """Whether the model of the runner is sharded."""
    return isinstance(runner.model, FullyShardedModel)


def call_gathered(model: nn.Module, function: Callable[[], Result]) -> Result:
    """Call a function that uses parts of a model outside of its forward.

    The parameters of a sharded model are gathered meanwhile; all processes
    have to call this. No gradients are computed.
    """
    if not isinstance(model, FullyShardedModel):
        return function()
    with torch.no_grad():
        result = model.module.call_gathered(function)
    model.module.reshard()
    return result


def gather_state(runner: Runner) -> Dict[str, Any]:
    """Weights and optimizer state as in a single process, on the CPU.

    All processes have to call it.
    """
    return dict(
        state_dict=_map(runner.model.module.state_dict(), _gather),
        optimizer=_map(runner.optim_wrapper.state_dict(), _gather))


def cut_state(runner: Runner, checkpoint: dict) -> None:
    """Shard the weights and optimizer state of a checkpoint in place."""
    targets = dict(runner.model.module.named_parameters())
    state = checkpoint['state_dict']
    for name, value in state.items():
        state[name] = cut_tensor(value, targets.get(name))
    # A test builds none.
    if 'optimizer' in checkpoint and isinstance(runner.optim_wrapper,
                                                OptimWrapper):
        params = [
            param for group in runner.optim_wrapper.param_groups
            for param in group['params']
        ]
        for index, moments in checkpoint['optimizer']['state'].items():
            for name, value in moments.items():
                moments[name] = cut_tensor(value, params[index])


def _gather(value: Any) -> Any:
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.cpu() if isinstance(value, Tensor) else value


def cut_tensor(value: Any, like: Any) -> Any:
    """Shard a tensor as a parameter of the same shape."""
    if (not isinstance(like, DTensor) or not isinstance(value, Tensor)
            or value.shape != like.shape):
        return value
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements)


def _map(state: Any, function: Any) -> Any:
    if isinstance(state, dict):
        return {key: _map(value, function) for key, value in state.items()}
    if isinstance(state, list):
        return [_map(value, function) for value in state]
    return function(state)
