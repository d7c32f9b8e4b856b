# Copyright (c) greenmim authors. All rights reserved.
"""What the families of backbones have in common."""
import inspect
import re
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Type

from torch import Tensor, nn

from .layouts import (Layout, Tensors, join_attention, merge_permutation,
                      rename_all, split_attention)

# The norms that a recorded config may name.
NORMS = ('LN', 'LN2d')


class Family:
    """A kind of backbone whose weights are converted between libraries.

    "Our names" are the names of the layout ``'openmmlab'``.

    Attributes:
        name: Recorded in the metadata of a file.
        types: Types of its classes in configs, the usual one first.
        cls: The class that is built to know all names and shapes.
        layouts: The layouts by name of the library or checkpoint.
        pattern: Regular expression, found in a name of every such backbone
            and in no name of another family.
        ignored: Regular expression of tensors to ignore, which only
            pre-training needs or which are recomputed.
        addable: Regular expression of norms that a pre-training may lack;
            where a file has none of them, they are added with weight 1 and
            bias 0.
        merged: Regular expression of tensors whose last dimension holds the
            channels of patch merging.
        hints: Arguments of the class or its arch that the tensors may not
            determine.
        one_window: Whether MMDetection and MMSegmentation have their own
            class of it, which takes one window for all stages.
        maps_type: The type that returns the maps of all stages, where the
            usual one does not.
    """
    name: str
    types: Tuple[str, ...]
    cls: Type[nn.Module]
    layouts: Dict[str, Layout]
    pattern: str
    ignored: str = r'^(head|mask_token)\b'
    addable: str = r'(?!)'
    merged: str = r'(?!)'
    hints: Tuple[str, ...] = ()
    one_window: bool = False
    maps_type: Optional[str] = None

    def infer_settings(self,
                       tensors: Tensors,
                       norm_eps: Optional[float] = None,
                       **hints: Any) -> Dict[str, Any]:
        """Infer the arguments of the class from the tensors.

        Args:
            tensors (dict[str, Tensor]): In our names, without a prefix.
            norm_eps (float, optional): Eps of all LayerNorms, which the
                tensors do not determine. Defaults to None, unknown.
            **hints: Values of some of the family's ``hints``.

        Returns:
            dict: Plain numbers, strings, lists and dicts.

        Raises:
            ValueError: If a tensor is missing that determines a setting.
        """
        raise NotImplementedError

    def hints_from(self, model: Any) -> Dict[str, Any]:
        """Read the ``hints`` from a model that was built."""
        return {}

    def hints_of(self, settings: Dict[str, Any]) -> Dict[str, Any]:
        """Read the ``hints`` from settings."""
        return {
            name: settings.get(name, settings['arch'].get(name))
            for name in self.hints
        }

    def windows(self, tensors: Tensors) -> List[int]:
        """The window of each stage; empty where attention is global."""
        return []

    def resize_tables(
            self, tensors: Tensors,
            windows: Sequence[int]) -> Tuple[Tensors, Tuple[str, ...]]:
        """Resize the weights that depend on the window.

        Returns all tensors, and the names of those that were resized.
        """
        return tensors, ()

    def adapt(self, settings: Dict[str, Any], windows: Sequence[int],
              maps: bool) -> Dict[str, Any]:
        """Change settings for other windows, and for reading ``maps`` of all
        stages."""
        if not maps:
            return settings
        stages = len(settings['arch']['depths'])
        return {**settings, 'out_indices': list(range(stages))}

    def timm_model(self, settings: Dict[str, Any], img_size: Any,
                   windows: Sequence[int]) -> Tuple[str, Dict[str, Any]]:
        """The class in ``timm.models`` and its arguments."""
        raise NotImplementedError

    def transformers_model(self, settings: Dict[str, Any], img_size: Any,
                           norm_eps: Optional[float],
                           windows: Sequence[int]) -> Dict[str, Any]:
        """The ``config.json`` of Hugging Face's class."""
        raise NotImplementedError

    def hints_from_transformers(self, config: Dict[str,
                                                   Any]) -> Dict[str, Any]:
        """Read the ``hints`` from such a config."""
        return {}

    def eps_from_transformers(self, config: Dict[str, Any]) -> Optional[float]:
        """The eps of all norms of such a model; None if they differ."""
        return config.get('layer_norm_eps')

    def build(self, settings: Dict[str, Any]) -> nn.Module:
        return self.cls(**settings)

    def build_recorded(self, config: Dict[str, Any]) -> nn.Module:
        """Build the backbone that a checkpoint's own config describes.

        Raises:
            ValueError: If the constructor refuses the config.
        """
        arguments = safe_arguments(self.cls, config)
        try:
            return self.build(arguments)
        # Constructors raise errors of many types.
        except Exception as error:
            raise ValueError(
                'cannot build the backbone that the checkpoint records '
                f'({type(error).__name__}: {error}); name the config of the '
                'pre-training by --config') from error

    def recognises(self, names: Iterable[str]) -> bool:
        return any(re.search(self.pattern, name) for name in names)

    def from_layout(self,
                    tensors: Tensors,
                    name: str,
                    older: bool = True) -> Tuple[Tensors, Tuple[str, ...]]:
        """Convert from a layout, by its name, to our names.

        Returns the tensors, and the unexpected keys of the layout. ``older``
        says whether names of earlier versions are read.
        """
        layout = self.layouts[name]
        renames = layout.renames
        if layout.older is not None and older:
            pattern, names = layout.older
            if any(re.search(pattern, key) for key in tensors):
                renames = names
        ours, unexpected = rename_all(tensors, renames, to_ours=True)
        ours = join_attention(ours, layout.attention)
        return self._reorder(ours, layout.merge_order, 'openmmlab'), unexpected

    def to_layout(self, tensors: Tensors,
                  name: str) -> Tuple[Tensors, Tuple[str, ...]]:
        """Undo :meth:`from_layout`; returns our unexpected keys."""
        layout = self.layouts[name]
        stored = {
            name: tensor
            for name, tensor in tensors.items()
            if not name.endswith(layout.not_stored)
        }
        stored = self._reorder(stored, 'openmmlab', layout.merge_order)
        stored = split_attention(stored, layout.attention)
        return rename_all(stored, layout.renames, to_ours=False)

    def _reorder(self, tensors: Tensors, source: str, target: str) -> Tensors:

        def reorder(tensor: Tensor) -> Tensor:
            channels, rest = divmod(tensor.shape[-1], 4)
            if source == target or rest:
                return tensor
            return tensor[..., merge_permutation(channels, source, target)]

        return {
            name: reorder(tensor) if re.search(self.merged, name) else tensor
            for name, tensor in tensors.items()
        }


def constructor_defaults(cls: type) -> Dict[str, Any]:
    """Default of each argument of a class and its parents."""
    return {
        name: parameter.default
        for parent in reversed(cls.__mro__[:-1])
        for name, parameter in inspect.signature(parent).parameters.items()
    }


def safe_arguments(cls: type, config: Dict[str, Any]) -> Dict[str, Any]:
    """The arguments of a class in a config whose origin is not trusted.

    The constructor gets numbers, and no string that it could look up as the
    name of other code.
    """
    known = constructor_defaults(cls).keys() - {'compile_blocks'}
    arguments = _numbers({k: v for k, v in config.items() if k in known})
    for key in 'arch', 'out_type':
        if isinstance(config.get(key), str):
            arguments[key] = config[key]
    return arguments


def shape_of(tensors: Tensors, name: str, ndim: int) -> List[int]:
    """The shape of a tensor that determines a setting."""
    if name not in tensors or tensors[name].ndim != ndim:
        raise ValueError(f'expected a tensor {name} of {ndim} '
                         'dimensions, found none')
    return list(tensors[name].shape)


def stage_depths(tensors: Tensors, pattern: str) -> List[int]:
    """The number of blocks in each stage, at least one stage.

    ``pattern`` matches the beginning of a block's names, with groups for the
    numbers of stage and block.
    """
    matches = (re.match(pattern, name) for name in tensors)
    blocks = [(int(match[1]), int(match[2])) for match in matches if match]
    stages = 1 + max((stage for stage, _ in blocks), default=0)
    return [
        1 + max((block for i, block in blocks if i == stage), default=0)
        for stage in range(stages)
    ]


def norm_config(eps: float, kind: str = 'LN') -> Dict[str, Any]:
    return dict(type=kind, eps=eps)


def _numbers(value: Any) -> Any:
    """Copy nested values without strings and configs of types but norms."""

    def is_kept(item: Any) -> bool:
        if isinstance(item, dict):
            return item.get('type', 'LN') in NORMS
        return not isinstance(item, (str, bytes)) or item in NORMS

    if isinstance(value, dict):
        return {
            k: _numbers(item)
            for k, item in value.items() if is_kept(item)
        }
    if isinstance(value, (list, tuple)):
        return [_numbers(item) for item in value if is_kept(item)]
    return value
