# Copyright (c) greenmim authors. All rights reserved.
"""What the package needs of MMEngine beyond its public interface.

Nothing else in the package reads or sets a private attribute of an object of
MMEngine, MMPretrain or PyTorch. A function that does names the version that it
was written for, and :data:`OVERRIDDEN` lists the private methods and
attributes that classes of this package inherit. Check both on an upgrade.
"""
import sys
from typing import Any, Callable, List, Optional, Tuple

import torch
from mmengine.model import is_model_wrapper, update_init_info
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner
from torch import Tensor

OVERRIDDEN = {
    # MMEngine 0.10.7
    'mmengine.hooks.CheckpointHook': ['_save_checkpoint_with_step'],
    'mmengine.runner.EpochBasedTrainLoop': ['_epoch', '_iter'],
    'mmengine.dataset.BaseDataset': ['_fully_initialized', '_metainfo'],
    'mmengine.dataset.InfiniteSampler': ['_infinite_indices'],
    'mmengine.model.ImgDataPreprocessor': ['_enable_normalize'],
    # MMPretrain 1.2.0
    'mmpretrain.models.SwinTransformer':
    ['_prepare_relative_position_bias_table'],
    'mmpretrain.models.SwinTransformerV2': ['_delete_reinit_params'],
    'mmpretrain.models.HiViT': ['_freeze_stages'],
    # PyTorch 2.5 to 2.11
    'torch.nn.Module': ['_load_from_state_dict'],
}
"""Private methods that are overridden and attributes that are set."""


def model_of(runner: Runner) -> Any:
    """The model of a run, without the wrapper of a distributed run."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def checkpoint_to_load(runner: Runner) -> Optional[str]:
    """The ``load_from`` of a run (MMEngine 0.10.7)."""
    return runner._load_from


def set_checkpoint_to_load(runner: Runner, path: str) -> None:
    """Change the ``load_from`` of a run (MMEngine 0.10.7)."""
    runner._load_from = path


def is_resuming(runner: Runner) -> bool:
    """The ``resume`` of a run (MMEngine 0.10.7)."""
    return runner._resume


def is_training(runner: Runner) -> bool:
    """Whether ``runner.train()`` was called (MMEngine 0.10.7)."""
    return isinstance(runner._train_loop, BaseLoop)


def runner_being_built() -> Optional[Runner]:
    """The runner whose constructor builds the caller, a hook; None elsewhere.

    MMEngine hands it to no hook before training (0.10.7), and a setting that
    the constructor or ``train()`` reads must be changed before.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        found = frame.f_locals.get('self')
        if isinstance(found, Runner) and frame.f_code.co_name == '__init__':
            return found
    return None


def postpone_config(runner: Runner) -> None:
    """Let the constructor write no config into the folder of the run.

    ``Runner.dump_config(runner)`` writes it (MMEngine 0.10.7).
    """
    runner.dump_config = lambda: None


def loaders_of(runner: Runner) -> List[Any]:
    """The configs of the data loaders of a run (MMEngine 0.10.7)."""
    loaders = (runner._train_dataloader, runner._val_dataloader,
               runner._test_dataloader)
    return [loader for loader in loaders if isinstance(loader, dict)]


def adapt_schedulers(runner: Runner, adapt: Callable[[Runner, Any],
                                                     Any]) -> None:
    """Change the configs of the schedulers when ``train()`` builds them.

    By then the length of the run is known (MMEngine 0.10.7).
    """
    build = runner.build_param_scheduler
    runner.build_param_scheduler = (
        lambda scheduler: build(adapt(runner, scheduler)))


def skip_weight_initialization(runner: Runner) -> None:
    """Leave the weights as they are when training begins (MMEngine 0.10.7)."""
    runner._init_model_weights = lambda: None


def record_initialization(module: torch.nn.Module, info: str) -> None:
    """Let the log of the weights name what set them (MMEngine 0.10.7)."""
    if hasattr(module, '_params_init_info'):
        update_init_info(module, init_info=info)


def has_static_loss_scale(wrapper: OptimWrapper) -> bool:
    """Whether an ``AmpOptimWrapper`` keeps its loss scale (MMEngine 0.10.7).
    """
    return bool(getattr(wrapper, '_scale_update_param', None))


def swaps_channels(preprocessor: Any) -> bool:
    """Whether a data preprocessor turns BGR into RGB or back.

    MMEngine 0.10.7, MMPretrain 1.2.0.
    """
    return (preprocessor._channel_conversion
            or getattr(preprocessor, 'flips_channels', False))


def set_active_positions(active: Tensor) -> None:
    """Set the visible positions of MMPretrain's SparK (MMPretrain 1.2.0).

    Args:
        active (Tensor): Bool (B, 1, H, W) of the last map.
    """
    from mmpretrain.models.utils import SparseHelper
    SparseHelper._cur_active = active


def norms(tensors: List[Tensor]) -> Tuple[Tensor, ...]:
    """The norm of each tensor, in few kernels (PyTorch 2.5 to 2.11)."""
    return torch._foreach_norm(tensors)
