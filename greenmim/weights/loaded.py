# Copyright (c) greenmim authors. All rights reserved.
"""Says in one line what a model has loaded of a file, and what not."""
from collections import Counter
from pathlib import Path
from typing import (Any, Callable, Collection, Iterable, List, Sequence, Tuple,
                    Union)

import torch
from mmengine.model import BaseTTAModel
from torch import Tensor, nn

from .coverage import Coverage
from .layouts import Tensors
from .swin_v2 import BUFFERS

UNUSED = 'not in the model'
Names = List[Tuple[str, str]]  # why a tensor is not loaded, and its name


def report_loading(model: nn.Module,
                   given: Tensors,
                   file: Union[str, Path],
                   say: Callable[[str], Any] = print,
                   prefix: str = '',
                   others: Iterable[str] = ()) -> None:
    """Let the next load of weights into a model say what it has loaded.

    What a model renames or resizes while it loads counts as loaded. PyTorch's
    and MMEngine's functions that load weights both call the hook of this.

    Args:
        model (nn.Module): The model.
        given (dict[str, Tensor]): The tensors of the file.
        file (str | Path): The file.
        say (Callable): Called with the line. Defaults to ``print``.
        prefix (str): What the names of the file begin with, if they are of a
            part of it. Defaults to ``''``.
        others (Iterable[str]): Names of further tensors of the file, which
            are not offered to the model. Defaults to none.

    Raises:
        ValueError: By that load, see :func:`check_fitting`.
    """
    if isinstance(model, BaseTTAModel):
        model = model.module  # as MMEngine does
    own = model.state_dict()
    # Of another shape: loaded if the model resizes them. (Those of FSDP, of
    # which each process has a part, are never resized.)
    before = {
        name: tensor.clone()
        for name, tensor in own.items() if name in given
        and tensor.shape != given[name].shape and type(tensor) is Tensor
    }

    def report(module: nn.Module, keys: Any) -> None:
        handle.remove()
        after = module.state_dict()
        kept = [k for k, v in before.items() if torch.equal(v, after[k])]
        resized = [k for k in before if k not in kept]
        # Made by the model for its windows, whatever the file has.
        kept = [k for k in kept if not k.endswith(BUFFERS)]
        rest = [('not in the file', name) for name in keys.missing_keys]
        rest += [('of another shape', name) for name in kept]
        rest += [(UNUSED, name) for name in keys.unexpected_keys]
        rest = [(reason, f'{prefix}{name}') for reason, name in rest]
        rest += [(UNUSED, name) for name in others]
        names = [f'{prefix}{name}' for name in after]
        lost = {name for reason, name in rest if reason != UNUSED}
        check_fitting(names, lost, [f'{prefix}{name}' for name in given], file)
        say(f'weights: {file}: {loaded_line(names, rest, resized)}')

    handle = model.register_load_state_dict_post_hook(report)


def load_weights(model: nn.Module,
                 given: Tensors,
                 file: Union[str, Path],
                 part: str = '',
                 others: Iterable[str] = ()) -> None:
    """Load all weights of a model, and print a line about it.

    Args:
        model (nn.Module): The model.
        given (dict[str, Tensor]): The tensors of the file.
        file (str | Path): The file.
        part (str): What it is of a model, such as ``'backbone'``. Defaults to
            ``''``, all of it.
        others (Iterable[str]): Names of the tensors of the file that are of
            other parts. Defaults to none.

    Raises:
        ValueError: If a tensor is missing, unexpected or does not fit.
    """
    report_loading(
        model, given, file, prefix=part and f'{part}.', others=others)
    try:
        model.load_state_dict(given)
    except RuntimeError as error:
        part = part or 'model'
        faults = Coverage.compare(part, model.state_dict(), given).faults
        raise ValueError(
            f'expected in {file} every tensor of the {part}, and no other, but'
            f' {len(faults)} do not match, such as {"; ".join(faults[:3])}'
        ) from error


def check_fitting(expected: Sequence[str], lost: Collection[str],
                  given: Sequence[str], file: Union[str, Path]) -> None:
    """Refuse a file that has nothing for a model.

    Args:
        expected (Sequence[str]): Names of the model's tensors.
        lost (Collection[str]): Those of them that the file does not have, or
            not in their shape.
        given (Sequence[str]): Names of the file's tensors.
        file (str | Path): The file.

    Raises:
        ValueError: If it is nothing for the model's backbone, or for a model
            without one.
    """
    # PyTorch sets the counters of batch norms that a file does not have.
    expected = [n for n in expected if not n.endswith('num_batches_tracked')]
    backbone = [name for name in expected if name.startswith('backbone.')]
    if all(name in lost for name in backbone or expected):
        remedy = ('convert files of other libraries with `greenmim import` '
                  'first')
        prefixes = [
            name[:-len(own)] for own in expected[:1] for name in given
            if name.endswith(f'.{own}')
        ]
        if prefixes:
            remedy = f'an init_cfg names their prefix, as {prefixes[0]!r}'
        raise ValueError(
            f'expected weights of the {"backbone" if backbone else "model"} '
            f'of the config in {file}, got {len(given)} tensors with names '
            f'such as {given[:3]}, none of which fits; {remedy}')


def loaded_line(expected: Sequence[str],
                rest: Names,
                resized: Sequence[str] = ()) -> str:
    """How many tensors of each part of a model were loaded, and what was not.

    Args:
        expected (Sequence[str]): Names of the model's tensors, which begin
            with their part.
        rest (list): Why a tensor of the model or of the file was not loaded,
            and its name.
        resized (Sequence[str]): Names of those that were resized.
    """

    def part(name: str) -> str:
        return name.partition('.')[0]

    totals = Counter(map(part, expected))
    missing = Counter(part(name) for reason, name in rest
                      if reason != UNUSED)  # yapf: disable
    loaded = ', '.join(f'{key} {total - missing[key]} of {total}'
                       for key, total in totals.items())
    rows = Counter((reason, part(name)) for reason, name in rest)
    others = ', '.join(f'{key}: {number} {reason}'
                       for (reason, key), number in rows.items())
    line = f'{loaded} tensors'
    if resized:
        line += f', {len(resized)} of them resized'
    return line + (f'; not loaded: {others}' if others else '')
