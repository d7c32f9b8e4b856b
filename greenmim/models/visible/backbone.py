# Copyright (c) greenmim authors. All rights reserved.
"""The masked forward of all backbones: what they share.

The letters of shapes are defined in :mod:`greenmim.ops`.
"""
from contextlib import contextmanager
from functools import partial
from itertools import count
from types import FunctionType
from typing import (Any, Callable, Iterable, Iterator, List, Optional,
                    Sequence, Tuple, TypeVar, Union)

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from greenmim.ops import (GroupPlanner, MaskPlan, StageWindows, VisibleLayout,
                          unit_grid)
from greenmim.ops.planning import planner_for

Mask = Union[Tensor, VisibleLayout, MaskPlan]
Self = TypeVar('Self', bound='PartlyFrozen')


def run_block(with_cp: bool, run: Callable[..., Any], *args: Any) -> Any:
    """Call ``run(*args)``, checkpointed if that saves memory.

    Args:
        with_cp (bool): Whether the block is to be checkpointed: its
            activations are computed again in the backward pass.
        run (Callable): The block.
        *args: Its arguments. Nothing is checkpointed unless one of them is a
            tensor with a gradient.
    """
    if with_cp and any(
            isinstance(arg, Tensor) and arg.requires_grad for arg in args):
        return checkpoint(run, *args, use_reentrant=False)
    return run(*args)


@contextmanager
def checkpointed(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Checkpoint blocks while a dense parent without ``with_cp`` runs them.

    Args:
        blocks (Iterable[nn.Module]): The blocks that the parent calls.
    """
    blocks = list(blocks)
    for block in blocks:
        block.forward = partial(run_block, True, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the method of the class is back


# Whether blocks are compiled, or a mode of `torch.compile`
CompileBlocks = Union[bool, str]
_NUMBERS = count()


class Compiled:
    """A function that is compiled if ``enabled``.

    It has a code object of its own, by which PyTorch counts compilations and
    remembers shapes: the same function for another stage is another. Code is
    compiled for the first shapes that it gets, and for any sizes as soon as
    one of them differs. Copies, including pickled ones, compile their own:
    compiled functions themselves cannot be pickled.

    Args:
        function (Callable): A function of a module, not of a closure.
        enabled (bool | str): Whether it is compiled, or the mode of
            ``torch.compile``.

    Raises:
        ValueError: If there is no such mode.
    """

    def __init__(self, function: Any, enabled: CompileBlocks) -> None:
        self.function = function
        self.enabled = enabled
        self._run = function
        if not enabled:
            return
        code = function.__code__
        code = code.replace(co_name=f'{code.co_name}_{next(_NUMBERS)}')
        own = FunctionType(code, function.__globals__, code.co_name,
                           function.__defaults__, function.__closure__)
        mode = enabled if isinstance(enabled, str) else None
        try:
            self._run = torch.compile(own, mode=mode)
        except RuntimeError as error:
            raise ValueError(
                'expected compile_blocks to be True, False or a mode of '
                f'torch.compile, got {enabled!r}') from error

    @classmethod
    def of_stages(cls, function: Any, number: int,
                  enabled: CompileBlocks) -> List['Compiled']:
        """One for every stage, which the blocks of a stage share."""
        return [cls(function, enabled) for _ in range(number)]

    def __reduce__(self) -> tuple:
        return Compiled, (self.function, self.enabled)

    def __call__(self, *args: Any) -> Any:
        return self._run(*args)


class PartlyFrozen:
    """Keeps frozen parts of a module in evaluation mode.

    A mixin; list it before the ``nn.Module`` whose ``train`` it extends.
    """

    def frozen_modules(self) -> Iterable[nn.Module]:
        """The modules that are not trained."""
        return ()

    def freeze(self) -> None:
        """Exclude the parameters of frozen modules from training."""
        for module in self.frozen_modules():
            module.eval().requires_grad_(False)

    def train(self: Self, mode: bool = True) -> Self:
        """Set the training mode and return the module itself.

        Frozen modules stay in evaluation mode.
        """
        super().train(mode)  # type: ignore[misc]
        for module in self.frozen_modules():
            module.eval()
        return self


def image_channels(backbone: Any) -> int:
    """Channels of the images that the first convolution reads.

    Args:
        backbone (nn.Module): The backbone.

    Raises:
        ValueError: If there is no convolution.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    raise ValueError('expected a backbone that reads images by a convolution, '
                     f'got {type(backbone).__name__}; give it an attribute '
                     'image_channels')


def check_last_stage(out_indices: Sequence[int], last: int) -> None:
    """Raise ``ValueError`` unless the last stage has a norm for the latent.

    Args:
        out_indices (Sequence[int]): The stages that have a norm.
        last (int): The number of the last stage.
    """
    if last not in out_indices:
        raise ValueError(
            'expected the last stage in out_indices, whose norm the latent '
            f'needs, got out_indices={tuple(out_indices)}; add {last}')


class StageOutputs(List[Tensor]):
    """The outputs of all stages, with the class token as an attribute.

    Attributes:
        class_token: Shape (B, C) after the final norm, or None.
    """
    class_token: Optional[Tensor] = None


class VisibleBackbone(PartlyFrozen):
    """Adds the masked forward to a dense backbone.

    A mixin; list it before the dense class. Without a mask the dense forward
    runs unchanged. The class provides :attr:`unit_size` and
    :meth:`forward_visible`; one with windows of attention also
    :meth:`stage_windows`, one with options that only work densely
    :meth:`check_masked`.
    """

    _planner: Optional[GroupPlanner] = None

    @property
    def reads_map_size(self) -> bool:
        """Whether a token depends on the size of the map around it.

        Positions that are resized to the map do so, for example. Images of
        such a backbone cannot be padded.
        """
        return False

    @property
    def unit_size(self) -> int:
        """Side of a mask unit in pixels: the stride of the last stage."""
        raise NotImplementedError

    @property
    def image_channels(self) -> int:
        """Channels of the images, which :func:`image_channels` finds."""
        return image_channels(self)

    def forward_visible(self, images_BCHW: Tensor,
                        plan: MaskPlan) -> List[Tensor]:
        """Every stage's tokens, (B, K, T_i, C_i); see `forward_stages`.

        Images and plan are known to fit.
        """
        raise NotImplementedError

    def stage_windows(self) -> Sequence[StageWindows]:
        """The window attention of every stage, if there is any."""
        return ()

    def check_masked(self) -> None:
        """Raise ``ValueError`` if options exclude a masked forward."""

    def make_planner(self) -> GroupPlanner:
        """Check the options and make a planner for this backbone.

        It plans for a GPU where there is one. It can be copied, for example to
        data-loading workers. The
        backbone checks plans against the last one that it made. Call this
        again after a change of options or windows.

        Raises:
            ValueError: If options exclude a masked forward.
        """
        self.check_masked()
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self._planner = planner_for(device, self.stage_windows())
        return self._planner

    def forward(self,
                x: Tensor,
                mask: Optional[Mask] = None,
                all_stages: bool = False) -> Any:
        """Forward images densely, or their visible units only.

        Args:
            x (Tensor): Images of shape (B, C, H, W).
            mask (Tensor | VisibleLayout | MaskPlan, optional): Bool of shape
                (B, Gh, Gw), or (1, Gh, Gw) for one mask shared by the batch,
                True = masked; or a layout or plan made from it. Defaults to
                None, the dense parent's forward.
            all_stages (bool): With a mask, return what
                :meth:`forward_stages` does, as a tuple. Unlike that method, a
                call of the module runs its hooks, so the algorithms use it.
                Defaults to False.

        Returns:
            tuple[Tensor] | Tensor: Without a mask the parent's feature maps,
            each of shape (B, C, H, W). With a mask the latent of shape
            (B, K * T, C) after the final norm, visible units in row-major
            order with the T tokens of the last stage each (1 if its stride
            is the unit's side). With ``all_stages`` the tokens of every
            stage, (B, K, T_i, C_i), and at the end the class token, (B, C),
            or None.

        Raises:
            ValueError: If image and mask do not fit the backbone or each
                other.
        """
        if mask is None:
            return self.forward_dense(x)
        stages = self.forward_stages(x, mask)
        if all_stages:
            # Hooks of PyTorch find no tensors in a subclass of list.
            return (*stages, getattr(stages, 'class_token', None))
        return stages[-1].flatten(1, 2)

    def forward_dense(self, x: Tensor) -> Tuple[Tensor, ...]:
        """The dense parent's forward."""
        return super().forward(x)  # type: ignore[misc]

    def forward_stages(self, x: Tensor, mask: Mask) -> List[Tensor]:
        """Forward the visible units and return every stage's output.

        Args:
            x (Tensor): Images of shape (B, C, H, W).
            mask (Tensor | VisibleLayout | MaskPlan): See :meth:`forward`.

        Returns:
            list[Tensor]: Unit-major tokens of shape (B, K, T_i, C_i), stage
            by stage, before the downsampling layer. They are normed if the
            dense model has a norm for the stage; the last always are.

        Raises:
            ValueError: See :meth:`forward`.
        """
        planner = self._planner or self.make_planner()
        channels = self.image_channels
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(
                f'expected images of shape (B, {channels}, H, W), got '
                f'{tuple(x.shape)}; in_channels of the backbone and the '
                'channels that the pipeline loads must agree')
        grid = unit_grid(x.shape[-2:], self.unit_size)
        if isinstance(mask, MaskPlan):
            plan = mask
            planned = [set(groups) for groups in plan.groups]
            windows = [set(stage.windows) for stage in planner.stages]
            if planned != windows:
                raise ValueError(
                    f'expected a plan for the windows {windows} of every '
                    f'stage, got one for {planned}; plan with make_planner() '
                    'of this backbone')
            VisibleLayout.from_mask(plan.layout, grid)
        else:
            plan = planner(VisibleLayout.from_mask(mask, grid))
        plan.layout.check_batch(len(x))
        if plan.layout.valid is not None and self.reads_map_size:
            raise ValueError(
                f'expected images of one size, since {type(self).__name__} '
                'resizes its positions to the map; crop them, or choose a '
                'backbone without such positions for a padded batch')
        return self.forward_visible(x, plan)
