# Copyright (c) greenmim authors. All rights reserved.
"""Whether a run can go on from a checkpoint, and what it will not change."""
import re
from typing import Any, Dict

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

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
    model = runner.model
    model = model.module if is_model_wrapper(model) else model
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    found = {
        re.sub(r'^module\.', '', name): tuple(tensor.shape)
        for name, tensor in checkpoint['state_dict'].items()
    }
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


def _same(new: Any, old: Any) -> bool:
    """Equal numbers, or equal tuples or lists of them."""
    if isinstance(new, (tuple, list)):
        return list(new) == list(old)
    return new == old
