# Copyright (c) greenmim authors. All rights reserved.
"""How libraries name and order the weights of a backbone.

A table of names has pairs of templates, (theirs, ours), each the beginning of
a tensor's name. ``{i}`` stands for a number, ``{i+1}`` for the next number,
and ``{last}`` for the last stage. One table serves both directions.

Patch merging joins the C channels of a 2x2 square of tokens to one vector of
4 * C. Its order is given by the axes of this vector, outermost first: the row
(y) and the column (x) of a token in the square, and its channel (c).
"""
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, Optional, Tuple

import torch
from torch import Tensor

Tensors = Dict[str, Tensor]
Renames = Tuple[Tuple[str, str], ...]

MERGE_ORDERS = {
    'microsoft': 'xyc',  # Microsoft's Swin; GreenMIM since its last commit
    'greenmim-2022': 'yxc',  # GreenMIM as of 2022
    'openmmlab': 'cyx',  # MMCV's PatchMerging, and ours
}

_FIELD = re.compile(r'\{(\w)(?:\+(\d+))?\}')
_STAGE = re.compile(r'(?:layers|stages)\.(\d+)\.')


def translate(name: str, source: str, target: str) -> Optional[str]:
    """Rewrite a name from one template to another; None if it does not
    match ``source``."""
    text_var_offset = _FIELD.split(source)
    pattern = re.escape(text_var_offset[0])
    offsets = {}
    for var, offset, text in zip(*(text_var_offset[k::3] for k in (1, 2, 3))):
        pattern += rf'(?P<{var}>\d+)' + re.escape(text)
        offsets[var] = int(offset or 0)
    match = re.match(pattern, name)
    if match is None:
        return None
    numbers = {var: int(match[var]) - off for var, off in offsets.items()}

    def fill(field: 're.Match') -> str:
        return str(numbers[field[1]] + int(field[2] or 0))

    return _FIELD.sub(fill, target) + name[match.end():]


def last_stage(names: Iterable[str]) -> int:
    """The largest number I in names with ``layers.I.`` or ``stages.I.``."""
    stages = (_STAGE.search(name) for name in names)
    return max((int(match[1]) for match in stages if match), default=0)


def rename_all(tensors: Tensors, renames: Renames,
               to_ours: bool) -> Tuple[Tensors, Tuple[str, ...]]:
    """Rename each tensor by the first template that matches.

    Returns the renamed tensors, and the unexpected keys, which no template
    matches.
    """
    last = str(last_stage(tensors))
    pairs = [(theirs.replace('{last}', last), ours.replace('{last}', last))
             for theirs, ours in renames]
    pairs = pairs if to_ours else [(ours, theirs) for theirs, ours in pairs]
    renamed, unexpected = {}, []
    for name, tensor in tensors.items():
        found = (translate(name, *pair) for pair in pairs)
        new = next((new for new in found if new is not None), None)
        if new is None:
            unexpected.append(name)
        else:
            renamed[new] = tensor
    return renamed, tuple(unexpected)


def merge_permutation(channels: int,
                      source: str,
                      target: str = 'openmmlab') -> Tensor:
    """Where a merged vector in one order finds its values in another.

    ``merged_target = merged_source[..., permutation]``; the parameters of a
    norm and the input columns of a weight are taken over in the same way.

    Returns:
        Tensor: Int64 of shape (4 * C, ).
    """
    for order in source, target:
        if order not in MERGE_ORDERS:
            raise ValueError(f'expected a merge order of {[*MERGE_ORDERS]}, '
                             f'got {order!r}')
    axes = MERGE_ORDERS[source]
    places = torch.arange(4 * channels).view(
        [channels if axis == 'c' else 2 for axis in axes])
    return places.permute([axes.index(axis)
                           for axis in MERGE_ORDERS[target]]).flatten()


def split_attention(tensors: Tensors, letters: str) -> Tensors:
    """Split queries, keys and values that one tensor holds."""
    split: Tensors = {}
    for name, tensor in tensors.items():
        match = letters and re.fullmatch(rf'(.*\.){letters}\.(\w+)', name)
        if match:
            for letter, part in zip(letters, tensor.chunk(len(letters))):
                split[f'{match[1]}{letter}.{match[2]}'] = part
        else:
            split[name] = tensor
    return split


def join_attention(tensors: Tensors, letters: str) -> Tensors:
    """Undo :func:`split_attention`; incomplete groups stay as they are."""
    joined: Tensors = {}
    for name, tensor in tensors.items():
        match = letters and re.fullmatch(rf'(.*\.)([{letters}])\.(\w+)', name)
        if not match:
            joined[name] = tensor
            continue
        names = [f'{match[1]}{letter}.{match[3]}' for letter in letters]
        if all(part in tensors for part in names):
            whole = f'{match[1]}{letters}.{match[3]}'
            joined[whole] = torch.cat([tensors[part] for part in names])
        else:
            joined[name] = tensor
    return joined


@dataclass(frozen=True)
class Layout:
    """How one library names and orders the weights of a backbone.

    Args:
        renames: Pairs (theirs, ours) of names without the backbone's prefix;
            by default all names are the same.
        merge_order: Order of the channels in patch merging, a key of
            ``MERGE_ORDERS``.
        not_stored: Ends of our names of buffers that the library computes
            and does not save.
        norm_eps: Eps of all LayerNorms of this library's models; None if it
            depends on the model.
        pretraining: Settings of the models that this library pre-trains,
            where the tensors do not determine them.
        types: Types of the library's own classes in configs; empty if it
            has none and the family's types are used.
        arguments: Converts the family's settings to the arguments of these
            classes; None if they are the same.
        older: The names of earlier versions of the library: a regular
            expression that is found in one of them alone, and the pairs.
        attention: ``'qkv'`` or ``'kv'`` where the library has a tensor for
            each of these letters and we have one for all: ``.q.``, ``.k.``
            and ``.v.`` in ``renames``.
        outside: Regular expression of names that belong to the backbone
            although they look like those of a classifier.
        has_prefix: Whether files name the tensors with a prefix, which
            MMEngine's ``init_cfg`` removes.
    """
    renames: Renames = (('', ''), )
    merge_order: str = 'openmmlab'
    not_stored: Tuple[str, ...] = ()
    norm_eps: Optional[float] = None
    pretraining: Dict[str, Any] = field(default_factory=dict)
    types: Tuple[str, ...] = ()
    arguments: Optional[Callable[[Dict[str, Any]], Dict[str, Any]]] = None
    older: Optional[Tuple[str, Renames]] = None
    attention: str = ''
    outside: str = r'(?!)'
    has_prefix: bool = True
