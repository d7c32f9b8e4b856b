# Copyright (c) greenmim authors. All rights reserved.
"""One parameter group for each setting of an optimizer."""
from typing import Any, Dict, List, Optional, Union

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from greenmim.registry import OPTIM_WRAPPER_CONSTRUCTORS

# Entries of a scheduler's state with a value for each parameter group
PER_GROUP = ('base_values', '_last_value')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MergedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor with a group for each setting.

    With ``paramwise_cfg`` MMEngine makes a group for each parameter, and an
    optimizer runs its kernels group by group. Here parameters of equal
    settings share a group; :func:`merge_checkpoint` turns the state of a run
    that had one for each parameter into what these groups load. The arguments
    are the parent's.
    """

    def add_params(self,
                   params: List[dict],
                   module: nn.Module,
                   prefix: str = '',
                   is_dcn_module: Optional[Union[int, float]] = None) -> None:
        """Add the parameters of a module, of the model as few groups."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:
            return
        groups: Dict[tuple, dict] = {}
        self._numbers: Dict[tuple, List[int]] = {}
        for number, group in enumerate(params):
            key = _settings({
                'lr': self.base_lr,
                'weight_decay': self.base_wd,
                **group
            })
            merged = groups.setdefault(key, {**group, 'params': []})
            merged['params'] += group['params']
            self._numbers.setdefault(key, []).append(number)
        params[:] = groups.values()

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer and its wrapper."""
        self._numbers = {}
        wrapper = super().__call__(model)
        # Of every group, the numbers that its parameters' groups had
        wrapper.optimizer.merged_groups = list(self._numbers.values())
        return wrapper


def _settings(group: dict) -> tuple:
    """What parameters must have in common to share a group."""
    # Factors are in the values that they made.
    return tuple(
        sorted((name, value) for name, value in group.items()
               if name not in ('params', 'lr_mult', 'decay_mult')))


def merge_checkpoint(wrapper: OptimWrapper, checkpoint: Dict[str,
                                                             Any]) -> None:
    """Merge the groups of a checkpoint as those of the optimizer, in place.

    Args:
        wrapper (OptimWrapper): That of the run. Nothing is done unless
            :class:`MergedOptimWrapperConstructor` built it and the checkpoint
            has a group for each parameter.
        checkpoint (dict): The checkpoint, with the states ``optimizer`` and
            ``param_schedulers`` if they were saved.

    Raises:
        ValueError: If parameters that share a group have other settings in
            the checkpoint.
    """
    numbers = getattr(wrapper.optimizer, 'merged_groups', [])
    earlier = checkpoint.get('optimizer', {}).get('param_groups', [])
    number = sum(map(len, numbers))
    if len(earlier) != number or len(numbers) == number:
        return
    groups = []
    for members in numbers:
        parts = [earlier[member] for member in members]
        if any(_settings(part) != _settings(parts[0]) for part in parts):
            raise ValueError(
                'expected parameters that share a group to have had the same '
                'settings in the checkpoint, which has a group for each; '
                'resume it with optim_wrapper.constructor='
                'DefaultOptimWrapperConstructor')
        params = [param for part in parts for param in part['params']]
        groups.append({**parts[0], 'params': params})
    checkpoint['optimizer']['param_groups'] = groups
    schedulers = checkpoint.get('param_schedulers', [])
    if isinstance(schedulers, dict):  # by the names of several optimizers
        schedulers = []
    for state in schedulers:
        for name in PER_GROUP:
            values = state.get(name, [])
            # MMEngine counts its base settings as one more group.
            if len(values) in (number, number + 1):
                state[name] = [values[members[0]] for members in numbers]
                state[name] += values[number:]
