# Copyright (c) greenmim authors. All rights reserved.
"""Options of backbones that are built stage by stage."""
import re
from typing import Any, Callable, Dict, Iterator, List, Tuple, Union

from torch import nn

from .backbone import PartlyFrozen


def arch_settings(arch: Union[str, Dict[str, Any]],
                  zoo: Dict[str, Dict[str, Any]]) -> Dict[str, Any]:
    """The settings of an arch, lists of them with a value for each stage.

    Args:
        arch (str | dict): A name in the zoo, or settings with its keys.
        zoo (dict[str, dict]): Settings by name.

    Raises:
        ValueError: If the name is unknown or the settings do not fit.
    """
    if isinstance(arch, str):
        if arch not in zoo:
            raise ValueError(f'expected arch to be one of {list(zoo)} or a '
                             f'dict, got {arch!r}')
        return zoo[arch]
    keys = next(iter(zoo.values())).keys()
    lengths = {len(v) for v in arch.values() if isinstance(v, list)}
    if arch.keys() != keys or len(lengths) != 1:
        raise ValueError(f'expected an arch with the keys {list(keys)} '
                         f'and lists of one length, got {arch}')
    return arch


class Pyramid(PartlyFrozen):
    """Frozen stages and layer depths of a backbone.

    A mixin; list it before an ``nn.Module`` with one module list
    ``patch_embeds`` and one ``stages``, whose items are lists of blocks.
    Further module lists hold a module for each stage, and names of norms end
    in the stage's number.
    """

    depths: List[int]
    patch_embeds: Any
    stages: Any
    with_cp: bool
    frozen_stages: int
    named_children: Callable[[], Iterator[Tuple[str, nn.Module]]]

    def frozen_modules(self) -> Iterator[nn.Module]:
        """Everything up to stage ``frozen_stages``."""
        for i in range(self.frozen_stages + 1):
            for name, child in self.named_children():
                if isinstance(child, nn.ModuleList):
                    yield child[i]
                elif name.endswith(str(i)):
                    yield child

    def get_layer_depth(self,
                        param_name: str,
                        prefix: str = '') -> Tuple[int, int]:
        """The depth of a parameter, for layer-wise learning rate decay.

        Returns:
            tuple[int, int]: The depth, 0 for the first patch embedding, and
            the number of depths: one for each block and two more. The last
            depth is for the last norm and everything outside the backbone.
        """
        num_layers = sum(self.depths) + 2
        match = re.match(r'([a-z_]+?)\.?(\d+)\.(\d*)',
                         param_name[len(prefix):])
        if not param_name.startswith(prefix) or match is None:
            return num_layers - 1, num_layers
        kind, stage = match[1], int(match[2])
        depth = sum(self.depths[:stage])
        if kind == 'stages':
            depth += int(match[3]) + 1
        elif kind == 'position_encodings':  # after the first block
            depth += 1
        elif kind != 'patch_embeds':  # a norm
            depth += self.depths[stage] + (stage + 1 == len(self.depths))
        return depth, num_layers
