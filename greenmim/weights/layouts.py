# Copyright (c) greenmim authors. All rights reserved.
"""How the libraries name and order the weights of a backbone.

Names are written as pairs of templates, (theirs, ours), each the beginning of
a name. ``{i}`` stands for a number, ``{i+1}`` for the number after it, and
``{last}`` for the last stage. One table serves both directions.
"""
import re
from dataclasses import dataclass, field
from typing import (Any, Callable, Dict, Iterable, List, Optional, Sequence,
                    Tuple)

from torch import Tensor, nn

from .merge_order import merge_permutation

Tensors = Dict[str, Tensor]
Renames = Tuple[Tuple[str, str], ...]

_FIELD = re.compile(r'\{(\w)(?:\+(\d+))?\}')
_STAGE = re.compile(r'(?:layers|stages)\.(\d+)\.')


def translate(name: str, source: str, target: str) -> Optional[str]:
    """Rewrite a name from one template to another.

    Returns:
        str | None: The new name; None if it does not begin as ``source``.
    """
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
    """The largest number of a stage in ``layers.I.`` or ``stages.I.``."""
    stages = (_STAGE.search(name) for name in names)
    return max((int(match[1]) for match in stages if match), default=0)


def rename_all(tensors: Tensors, renames: Renames,
               to_ours: bool) -> Tuple[Tensors, Tuple[str, ...]]:
    """Rename tensors by the first template that fits.

    Returns:
        tuple[dict[str, Tensor], tuple[str]]: The renamed tensors, and the
        names that no template fits.
    """
    last = str(last_stage(tensors))
    pairs = [(theirs.replace('{last}', last), ours.replace('{last}', last))
             for theirs, ours in renames]
    pairs = pairs if to_ours else [(ours, theirs) for theirs, ours in pairs]
    renamed, homeless = {}, []
    for name, tensor in tensors.items():
        found = (translate(name, *pair) for pair in pairs)
        new = next((new for new in found if new is not None), None)
        if new is None:
            homeless.append(name)
        else:
            renamed[new] = tensor
    return renamed, tuple(homeless)


@dataclass(frozen=True)
class Layout:
    """One library's names and order of the weights of a backbone.

    Args:
        renames: Pairs (theirs, ours) without the backbone's prefix; one of
            empty templates where all names are the same.
        merge_order: Order of the merged channels, see
            :mod:`.merge_order`.
        without: Beginnings or ends of our names that the library does not
            store, since it computes them.
        norm_eps: Eps of the LayerNorms of all models in this layout; None
            where it is the model's own.
        pre_training: Arguments of the models that are pre-trained in this
            layout and leave no trace in the tensors.
        types: How configs name the classes that have these names; empty
            where they are the family's.
        arguments: From the family's settings to the arguments of these
            classes; None where they are the same.
        knows_prefix: Whether these classes load by MMEngine's ``init_cfg``,
            which takes a prefix off the names.
    """
    renames: Renames = (('', ''), )
    merge_order: str = 'openmmlab'
    without: Tuple[str, ...] = ()
    norm_eps: Optional[float] = None
    pre_training: Dict[str, Any] = field(default_factory=dict)
    types: Tuple[str, ...] = ()
    arguments: Optional[Callable[[Dict[str, Any]], Dict[str, Any]]] = None
    knows_prefix: bool = True


def _no_windows(settings: Dict[str, Any]) -> List[int]:
    """None: attention is global."""
    return []


def _nothing_to_resize(
        tensors: Tensors,
        windows: Sequence[int]) -> Tuple[Tensors, Tuple[str, ...]]:
    """The tensors as they are."""
    return tensors, ()


def outputs_of_stages(settings: Dict[str, Any], windows: Sequence[int],
                      maps: bool) -> Dict[str, Any]:
    """The settings of a pyramid, with an output of every stage for maps."""
    if not maps:
        return settings
    stages = len(settings['arch']['depths'])
    return {**settings, 'out_indices': list(range(stages))}


@dataclass(frozen=True)
class Family:
    """A kind of backbone, whose names are ours in the layout 'openmmlab'.

    Args:
        name: As in the passport of a file.
        types: How configs name its classes, the usual one first.
        pattern: Found in a name of every such backbone, and in no other.
        passing: Fits the names of tensors that serve pre-training alone or
            are computed, and are left out.
        layouts: By the name of the library or file.
        infer_settings: From our tensors, the eps of the LayerNorms, if known,
            and the ``untraced`` arguments that are known, to the backbone's
            arguments: plain numbers, lists and dicts, the arch and the
            windows among them.
        declared_settings: The same from a backbone's config.
        build: From settings to the backbone.
        merged: Fits the names of the tensors whose last dimension holds
            merged channels.
        untraced: Arguments, of the backbone or its arch, that its tensors do
            not tell, in some layouts at least.
        windows_of: From settings to the window of each stage.
        resize_windows: Gives each stage another window; returns the tensors
            and the names of those that it resized.
        adapt: From settings, the windows of the stages and whether maps of
            all stages are read, to the settings that this needs.
        one_window: Whether MMDetection and MMSegmentation have a class of
            their own for it, which takes one window for all stages.
    """
    name: str
    types: Tuple[str, ...]
    pattern: str
    passing: str
    layouts: Dict[str, Layout]
    infer_settings: Callable[..., Dict[str, Any]]
    declared_settings: Callable[[Dict[str, Any]], Dict[str, Any]]
    build: Callable[[Dict[str, Any]], nn.Module]
    merged: str = r'(?!)'
    untraced: Tuple[str, ...] = ()
    windows_of: Callable[[Dict[str, Any]], List[int]] = _no_windows
    resize_windows: Callable[[Tensors, Sequence[int]],
                             Tuple[Tensors, Tuple[str, ...]]] = (
                                 _nothing_to_resize)
    adapt: Callable[[Dict[str, Any], Sequence[int], bool],
                    Dict[str, Any]] = outputs_of_stages
    one_window: bool = False

    def knows(self, names: Iterable[str]) -> bool:
        return any(re.search(self.pattern, name) for name in names)

    def from_layout(self, tensors: Tensors,
                    layout: Layout) -> Tuple[Tensors, Tuple[str, ...]]:
        """Our tensors, and the names of those without a place."""
        ours, homeless = rename_all(tensors, layout.renames, to_ours=True)
        return self._reorder(ours, layout.merge_order, 'openmmlab'), homeless

    def to_layout(self, tensors: Tensors,
                  layout: Layout) -> Tuple[Tensors, Tuple[str, ...]]:
        """Their tensors, and the names of ours without a place."""
        stored = {
            name: tensor
            for name, tensor in tensors.items()
            if not any(name.endswith(end) for end in layout.without)
        }
        stored = self._reorder(stored, 'openmmlab', layout.merge_order)
        return rename_all(stored, layout.renames, to_ours=False)

    def _reorder(self, tensors: Tensors, source: str, target: str) -> Tensors:
        if source == target:
            return tensors
        return {
            name:
            _permute(tensor, source, target) if re.search(self.merged, name)
            and tensor.shape[-1] % 4 == 0 else tensor
            for name, tensor in tensors.items()
        }


def _permute(tensor: Tensor, source: str, target: str) -> Tensor:
    return tensor[...,
                  merge_permutation(tensor.shape[-1] // 4, source, target)]
