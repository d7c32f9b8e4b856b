# Copyright (c) greenmim authors. All rights reserved.
"""Checks before a checkpoint is loaded or resumed."""
import re
from typing import Any, Dict, Tuple

from mmengine.dist import get_world_size
from mmengine.runner import Runner
from torch import Tensor

from greenmim._mmengine import checkpoint_to_load, model_of
from greenmim.weights import report_loading
from ..loops import batch_size_of
from ..screen import show

Shapes = Dict[str, Tuple[int, ...]]
# The settings of an optimizer that a checkpoint holds.
SETTINGS = ('initial_lr', 'weight_decay', 'betas', 'momentum')


def check_model(runner: Runner, checkpoint: Dict[str, Any]) -> None:
    """Refuse to resume the run of another model.

    MMEngine would skip the tensors that do not fit, and PyTorch's fused
    optimizers read moments of another size beyond their end.

    Raises:
        ValueError: If names or shapes of the weights differ.
    """
    expected, found = _shapes(runner, checkpoint)
    wrong = sorted(name for name in expected.keys() | found.keys()
                   if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise ValueError(
            "expected a checkpoint of the config's model to resume, but in "
            f'{_file(runner)} {len(wrong)} tensors are missing, unexpected or '
            f'of another shape: {name} should have the shape '
            f'{expected.get(name)}, and has {found.get(name)}; resume '
            'with the config of that run, or start a new run from its weights '
            'with load_from, without --resume')


def report_weights(runner: Runner, checkpoint: Dict[str, Any]) -> None:
    """Let the log say in a line what the model loads of a checkpoint.

    MMEngine lists the tensors that do not fit, and continues without them.

    Raises:
        ValueError: If no tensor has the name and the shape of the model's.
    """
    report_loading(
        model_of(runner), _tensors_of(checkpoint), _file(runner),
        lambda line: show(runner.logger, line))


def warn_of_settings(runner: Runner, checkpoint: Dict[str, Any]) -> None:
    """Warn where config and checkpoint differ in a setting of the optimizer.

    The checkpoint's setting is used, since the schedulers continue from it.
    """
    before = checkpoint.get('optimizer', {}).get('param_groups', [])
    for name in SETTINGS:
        for new, old in zip(runner.optim_wrapper.param_groups, before):
            if name in new and name in old and not _same(new[name], old[name]):
                runner.logger.warning(
                    f'The resumed run keeps {name}={old[name]} of its '
                    f'checkpoint and ignores the {new[name]} of the config. '
                    'For another value start a new run from its weights with '
                    'load_from, without --resume.')
                break


def schedule_of(runner: Runner) -> Dict[str, int]:
    """The length of a run and of its batches, for its checkpoints."""
    counts = (runner.cfg.get('optim_wrapper') or {}).get('accumulative_counts')
    return dict(
        max_epochs=runner.max_epochs,
        max_iters=runner.max_iters,
        batch_size=batch_size_of(runner.train_dataloader) * get_world_size() *
        (counts or 1),
        images=len(runner.train_dataloader.dataset))


def warn_of_schedule(runner: Runner, checkpoint: Dict[str, Any]) -> None:
    """Warn where a resumed run has another length or batch than before."""
    before = checkpoint.get('meta', {}).get('schedule', {})
    if not before:  # written by an earlier version
        info = checkpoint.get('message_hub', {}).get('runtime_info', {})
        before = {key: info.get(key) for key in ('max_epochs', 'max_iters')}
    now = schedule_of(runner)
    changed = [
        f'{name}={now[name]} instead of {before[name]}' for name in now
        if before.get(name) not in (None, now[name])
    ]
    if not changed:
        return
    text = f'The resumed run has {", ".join(changed)}.'
    if before.get('max_iters') not in (None, now['max_iters']):
        text += (' The learning rate still follows the schedule of the '
                 f'checkpoint, made for {before["max_iters"]} iterations.')
    runner.logger.warning(text)


def _file(runner: Runner) -> str:
    """The file that is loaded, without how it is read."""
    return str(checkpoint_to_load(runner)).rpartition('://')[2]


def _shapes(runner: Runner, checkpoint: Dict[str,
                                             Any]) -> Tuple[Shapes, Shapes]:
    """The model's tensors, and the checkpoint's."""
    own, given = model_of(runner).state_dict(), _tensors_of(checkpoint)
    return _shapes_of(own), _shapes_of(given)


def _shapes_of(tensors: Dict[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _tensors_of(checkpoint: Dict[str, Any]) -> Dict[str, Tensor]:
    """By name, without the prefix of a model wrapper."""
    return {
        re.sub(r'^module\.', '', name): tensor
        for name, tensor in checkpoint.get('state_dict', checkpoint).items()
        if isinstance(tensor, Tensor)
    }


def _same(new: Any, old: Any) -> bool:
    """Equal numbers, or equal tuples or lists of them."""
    if isinstance(new, (tuple, list)):
        return list(new) == list(old)
    return new == old
