# Copyright (c) greenmim authors. All rights reserved.
"""Options of backbones that are built stage by stage."""
import re
from typing import Any, Callable, Iterator, List, Tuple

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Pyramid:
    """Checkpointed blocks, frozen stages and depths of layers.

    It stands before an ``nn.Module`` among the bases of a class with one
    module list ``patch_embeds`` and one ``stages``, whose items are lists of
    blocks; further module lists hold a module for each stage, and names of
    norms end in the stage's number.
    """

    depths: List[int]
    patch_embeds: Any
    stages: Any
    with_cp: bool
    frozen_stages: int
    named_children: Callable[[], Iterator[Tuple[str, nn.Module]]]

    def run_block(self, run: Callable[..., Tensor], x: Tensor, *args:
                  Any) -> Tensor:
        """``run(x, *args)``, checkpointed if that saves anything."""
        if self.with_cp and x.requires_grad:
            return checkpoint(run, x, *args, use_reentrant=False)
        return run(x, *args)

    def train(self, mode: bool = True) -> 'Pyramid':
        """Set the training mode; frozen stages stay in evaluation mode."""
        super().train(mode)  # type: ignore[misc]
        for module in self._frozen_modules():
            module.eval()
        return self

    def freeze(self) -> None:
        """Exclude the parameters of frozen stages from training."""
        for module in self._frozen_modules():
            module.eval().requires_grad_(False)

    def _frozen_modules(self) -> Iterator[nn.Module]:
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

        Args:
            param_name (str): Name of the parameter.
            prefix (str): The backbone's name in the model with a dot.
                Defaults to ''.

        Returns:
            tuple[int, int]: The depth, 0 for the first patch embedding, and
            the number of depths, which is that of the blocks and two more:
            the last one is that of the last norm and of what follows.
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
        elif kind == 'position_encodings':  # behind the first block
            depth += 1
        elif kind != 'patch_embeds':  # a norm
            depth += self.depths[stage] + (stage + 1 == len(self.depths))
        return depth, num_layers
