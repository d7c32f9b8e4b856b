# Copyright (c) greenmim authors. All rights reserved.
"""Whether a run can begin or go on from a checkpoint, and what stays."""
import re
from typing import Any, Dict, Tuple

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

Shapes = Dict[str, Tuple[int, ...]]
# Settings of the optimizer that a checkpoint holds.
SETTINGS = ('initial_lr', 'weight_decay', 'betas', 'momentum')


def check_model(runner: Runner, checkpoint: Dict[str, Any]) -> None:
    """Refuse to resume the run of another model.

    MMEngine would leave out the tensors that do not fit, and PyTorch's fused
    optimizers read moments of another size beyond their end.

    Args:
        runner (Runner): The runner.
        checkpoint (dict): What it is about to load.

    Raises:
        ValueError: If names or shapes of the weights differ.
    """
    expected, found = _shapes(runner, checkpoint)
    wrong = sorted(name for name in expected.keys() | found.keys()
                   if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise ValueError(
            "expected a checkpoint of the config's model to resume, but "
            f'{len(wrong)} of its tensors are missing, unknown or of other '
            f'shapes: {name} should have the shape {expected.get(name)}, and '
            f'has {found.get(name)}; resume with the config of that run, or '
            'begin a new one from its weights by load_from, without --resume')


def check_overlap(runner: Runner, checkpoint: Dict[str, Any]) -> None:
    """Refuse weights of which none is one of the model's.

    MMEngine names those that do not fit, and goes on however few do.

    Args:
        runner (Runner): The runner.
        checkpoint (dict): What it is about to load.

    Raises:
        ValueError: If no tensor has the name and the shape of the model's.
    """
    expected, found = _shapes(runner, checkpoint)
    fitting = expected.items() & found.items()
    if not fitting:
        raise ValueError(
            "expected weights of the config's model in the file to load, but "
            f'none of its {len(found)} tensors fits, {next(iter(found), None)}'
            ' for example; convert another library\'s file by '
            'tools/model_converters/import_checkpoint.py, or load a backbone '
            'alone by init_cfg')
    runner.logger.info(f'{len(fitting)} of {len(expected)} tensors of the '
                       'model are in the file to load.')


def tell_of_settings(runner: Runner, checkpoint: Dict[str, Any]) -> None:
    """Warn where the config has another setting of the optimizer.

    The checkpoint's is kept, since schedulers go on from it.

    Args:
        runner (Runner): The runner.
        checkpoint (dict): What it is about to load.
    """
    before = checkpoint.get('optimizer', {}).get('param_groups', [])
    for name in SETTINGS:
        for new, old in zip(runner.optim_wrapper.param_groups, before):
            if name in new and name in old and not _same(new[name], old[name]):
                runner.logger.warning(
                    f'The resumed run keeps {name}={old[name]} of its '
                    f'checkpoint, whatever the config says ({new[name]}). For '
                    'another value begin a new run from its weights by '
                    'load_from, without --resume.')
                break


def _shapes(runner: Runner, checkpoint: Dict[str,
                                             Any]) -> Tuple[Shapes, Shapes]:
    """The model's tensors, and the checkpoint's."""
    model = runner.model
    model = model.module if is_model_wrapper(model) else model
    given = checkpoint.get('state_dict', checkpoint)
    return _shapes_of(model.state_dict()), _shapes_of(given)


def _shapes_of(tensors: Dict[str, Any]) -> Shapes:
    """Without the prefix of a wrapper, which loads what it wraps."""
    return {
        re.sub(r'^module\.', '', name): tuple(tensor.shape)
        for name, tensor in tensors.items() if isinstance(tensor, Tensor)
    }


def _same(new: Any, old: Any) -> bool:
    """Equal numbers, or equal tuples or lists of them."""
    if isinstance(new, (tuple, list)):
        return list(new) == list(old)
    return new == old
