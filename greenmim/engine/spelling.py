# Copyright (c) greenmim authors. All rights reserved.
"""Misspelt keys among the options of a command."""
from collections.abc import Mapping
from difflib import get_close_matches
from inspect import Parameter, isclass, signature
from typing import Any, Optional, Set, Tuple

from mmengine.config import Config
from mmengine.registry import (DATA_SAMPLERS, DATASETS, HOOKS, LOOPS, METRICS,
                               MODELS, OPTIM_WRAPPERS, OPTIMIZERS,
                               PARAM_SCHEDULERS, TRANSFORMS, VISBACKENDS,
                               VISUALIZERS, init_default_scope)
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

REGISTRIES = (MODELS, HOOKS, DATASETS, TRANSFORMS, OPTIM_WRAPPERS, OPTIMIZERS,
              PARAM_SCHEDULERS, LOOPS, DATA_SAMPLERS, METRICS, VISUALIZERS,
              VISBACKENDS)

# Keys that MMEngine takes out before it builds an object.
BUILDER_KEYS = {
    'type', '_delete_', '_scope_', 'priority', 'constructor', 'paramwise_cfg',
    'convert_to_iter_based', 'dataset', 'sampler', 'num_batch_per_epoch'
}

# What is built of settings without a type.
UNTYPED = {
    'train_cfg': (EpochBasedTrainLoop, IterBasedTrainLoop),
    'train_dataloader': (DataLoader, ),
    'val_dataloader': (DataLoader, ),
    'test_dataloader': (DataLoader, ),
    'randomness': (Runner.set_randomness, )
}


def check_spelling(cfg: Config, option: str) -> None:
    """Refuse an option that resembles a setting and is none.

    Args:
        cfg (Config): The config to which it would be added.
        option (str): Its keys, ``model.mask_ratio`` for example.

    Raises:
        ValueError: If the config has no such key, the class that would get it
            has no such argument, and one of these resembles it.
    """
    node: Any = cfg
    keys = option.split('.')
    for i, key in enumerate(keys):
        if isinstance(node, (list, tuple)):
            if not (key.isdigit() and int(key) < len(node)):
                return
            node = node[int(key)]
            continue
        if not isinstance(node, (Mapping, Config)):
            return
        if key in node:
            node = node[key]
            continue
        # A new hook has a type, whatever its name resembles.
        if keys[-1] == 'type' and i < len(keys) - 1:
            return
        known, closed = _known(cfg, node, keys[i - 1])
        if key in known:
            return
        close = get_close_matches(key, known, 1, 0.6 if closed else 0.8)
        if close:
            place = '.'.join(keys[:i])
            raise ValueError(
                f'{option}: expected a setting of {place}, of '
                f'which none is named {key!r}; did you mean {close[0]!r}?')
        return


def _known(cfg: Config, node: Any, name: str) -> Tuple[Set[str], bool]:
    """The keys that settings may have, and whether these are all."""
    built = UNTYPED.get(name, ())
    if 'type' in node:
        found = _find(cfg, node['type'])
        built = () if found is None else (found, )
    known, closed = {str(key) for key in node}, bool(built)
    for one in built:
        arguments, all_of_them = _arguments(one)
        known |= arguments
        closed &= all_of_them
    return known | (BUILDER_KEYS if built else set()), closed


def _find(cfg: Config, kind: Any) -> Optional[Any]:
    if not isinstance(kind, str):
        return kind
    scope = cfg.get('default_scope', 'mmpretrain')
    init_default_scope(scope)
    for registry in REGISTRIES:
        with registry.switch_scope_and_registry(None) as current:
            found = current.get(kind)
        if found is not None:
            return found
    return None


def _arguments(built: Any) -> Tuple[Set[str], bool]:
    """Names of the arguments, and whether there are no others."""
    functions = [built]
    if isclass(built):
        functions = [
            vars(one)['__init__'] for one in built.__mro__
            if '__init__' in vars(one)
        ]
    names: Set[str] = set()
    for function in functions:
        parameters = signature(function).parameters.values()
        names |= {parameter.name for parameter in parameters}
        if not any(parameter.kind is Parameter.VAR_KEYWORD
                   for parameter in parameters):
            return names, True
    return names, False
