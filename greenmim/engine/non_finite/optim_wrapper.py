# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, ContextManager, Dict, Optional

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, is_distributed
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from greenmim._mmengine import has_static_loss_scale, norms

# From low to high. The second has the range of the third.
PRECISIONS = (torch.float16, torch.bfloat16, torch.float32)


def precision_of(wrapper: OptimWrapper) -> torch.dtype:
    """The data type in which a training step computes."""
    dtype = getattr(wrapper, 'cast_dtype', torch.float32)
    return torch.get_autocast_dtype(get_device()) if dtype is None else dtype


def next_precision(wrapper: OptimWrapper) -> Optional[torch.dtype]:
    """The next higher precision that the device has; None above float32."""
    dtype = precision_of(wrapper)
    if dtype not in PRECISIONS[:2]:
        return None
    if dtype is torch.float16 and (get_device() != 'cuda'
                                   or torch.cuda.is_bf16_supported(False)):
        return torch.bfloat16
    return torch.float32


class FiniteOptimWrapper(OptimWrapper):
    """Skips the steps of another optimizer wrapper that are not finite.

    :class:`NonFiniteHook` puts it around the wrapper that the config names,
    whichever it is. All state stays in that wrapper, which the schedulers
    hold, and all but the decision whether to step is done by it.

    A gradient scaler (float16) skips steps by itself, which is how it finds
    its scale. They count as a problem once it cannot lower the scale any
    more, or has lowered it to 1, where it is no longer the cause.

    A wrapper class with an ``update_params`` of its own steps by itself; there
    only the loss is checked.

    Args:
        wrapped (OptimWrapper): Computes and applies the gradients.

    Raises:
        TypeError: If it is not an ``OptimWrapper``, as with several
            optimizers.
    """

    def __init__(self, wrapped: OptimWrapper) -> None:
        if not isinstance(wrapped, OptimWrapper):
            raise TypeError('expected a single OptimWrapper, got '
                            f'{type(wrapped).__name__}; switch NonFiniteHook '
                            'off with default_hooks.non_finite=None')
        self.wrapped = wrapped
        self.problem: Optional[str] = None
        """``'loss'`` or ``'gradient'`` after a step that is not finite.

        The hook resets it."""

    @property
    def checks_gradients(self) -> bool:
        """Whether gradients are checked, and not only the loss."""
        return (type(self.wrapped).update_params is OptimWrapper.update_params)

    def __getattr__(self, name: str) -> Any:
        if name == 'wrapped':  # while a copy is made
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def update_params(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute gradients and step, if the loss of all processes and the
        gradients are finite.

        The device is read once, after the backward pass. For the arguments
        see :class:`mmengine.optim.OptimWrapper`.
        """
        loss_finite = loss.detach().isfinite().all()
        if is_distributed():
            flag = loss_finite.int()
            all_reduce(flag, 'min')
            loss_finite = flag.bool()
        if self.checks_gradients:
            self._update(loss, loss_finite, *args, **kwargs)
        elif loss_finite:
            self.wrapped.update_params(loss, *args, **kwargs)
        else:
            self.problem = 'loss'
            self.zero_grad()

    def _update(self,
                loss: Tensor,
                loss_finite: Tensor,
                step_kwargs: Optional[Dict] = None,
                zero_kwargs: Optional[Dict] = None) -> None:
        self.backward(self.scale_loss(loss))
        flags, steps = [loss_finite], self.should_update()
        if steps:
            flags.append(self._gradients_finite())
        finite, *gradients_finite = torch.stack(flags).tolist()
        if not finite:
            # With it go the gradients that were accumulated before.
            self.problem = 'loss'
            self.zero_grad()
        elif steps:
            self._step(gradients_finite[0], **(step_kwargs or {}))
            self.zero_grad(**(zero_kwargs or {}))

    def step(self, **kwargs: Any) -> None:
        """Step, if the gradients are finite."""
        self._step(bool(self._gradients_finite()), **kwargs)

    def _step(self, finite: bool, **kwargs: Any) -> None:
        scaler = getattr(self, 'loss_scaler', None)
        if scaler is not None and not scaler.is_enabled():
            scaler = None
        if not finite and (scaler is None or has_static_loss_scale(
                self.wrapped) or scaler.get_scale() <= 1):
            self.problem = 'gradient'
        if finite or scaler is not None:
            self.wrapped.step(**kwargs)

    def _gradients_finite(self) -> Tensor:
        """A flag on the device."""
        gradients = [
            param.grad for group in self.param_groups
            for param in group['params'] if param.grad is not None
        ]
        finite = torch.stack(norms(gradients)).isfinite().all()
        # That of sharded gradients is made of all shards.
        return finite.full_tensor() if isinstance(finite, DTensor) else finite

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute in bfloat16 or float32 from now on.

        Weights, gradients and the state of the optimizer are float32 in any
        case. Both data types have the range of float32, so that the loss is
        no longer scaled.
        """
        self.wrapped.cast_dtype = dtype
        self.wrapped.loss_scaler = torch.amp.GradScaler(enabled=False)

    def optim_context(self, model: nn.Module) -> ContextManager:
        """The context of a forward pass, without autocast for float32."""
        if precision_of(self.wrapped) is torch.float32:
            return OptimWrapper.optim_context(self.wrapped, model)
        return self.wrapped.optim_context(model)

    def scale_loss(self, loss: Tensor) -> Tensor:
        """See :class:`mmengine.optim.OptimWrapper`, as for all below."""
        return self.wrapped.scale_loss(loss)

    def should_update(self) -> bool:
        return self.wrapped.should_update()

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        self.wrapped.backward(loss, **kwargs)

    def zero_grad(self, **kwargs: Any) -> None:
        self.wrapped.zero_grad(**kwargs)

    def initialize_count_status(self, *args: Any, **kwargs: Any) -> None:
        self.wrapped.initialize_count_status(*args, **kwargs)

    def state_dict(self) -> Dict[str, Any]:
        return self.wrapped.state_dict()

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        self.wrapped.load_state_dict(state_dict)
