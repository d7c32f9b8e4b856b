# Copyright (c) greenmim authors. All rights reserved.
"""What the common tests need to know about a backbone."""
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from hypothesis import strategies as st
from torch import Tensor, nn

Size = Tuple[int, int]  # (height, width) in pixels
Case = Tuple[Size, Dict[str, Any]]


class Twin:
    """A slow, obviously right dense model that masks.

    It computes every token of the map and shares no line with the package.

    Args:
        model (nn.Module): The backbone whose parameters are used.
        drop_path (Tensor, optional): Factors (B,) that replace the random
            ones of stochastic depth in every residual branch. Defaults to
            None, no drop path.
    """

    def __init__(self,
                 model: nn.Module,
                 drop_path: Optional[Tensor] = None) -> None:
        self.model = model
        self.drop_path = drop_path

    def stages(self, images: Tensor, mask: Tensor) -> List[Tensor]:
        """All stages as ``forward_stages`` returns them, (B, K, T, C)."""
        raise NotImplementedError

    def __call__(self, images: Tensor, mask: Tensor) -> Tensor:
        """The latent, (B, K * t, C)."""
        return self.stages(images, mask)[-1].flatten(1, 2)

    def drop(self, x: Tensor) -> Tensor:
        """Stochastic depth of a residual branch (B, ...)."""
        if self.drop_path is None:
            return x
        return x * self.drop_path.to(x).view(-1, *[1] * (x.ndim - 1))


def frozen_up_to(*parts: str) -> Callable[[str, int], bool]:
    """Whether a parameter belongs to a part with the number of a frozen stage.

    Args:
        parts: Beginnings of names, ``{}`` for the number of the stage.
    """

    def is_frozen(name: str, frozen_stages: int) -> bool:
        return name.startswith(
            tuple(
                part.format(i) for part in parts
                for i in range(frozen_stages + 1)))

    return is_frozen


def draw_sr_ratios(draw: Callable) -> List[int]:
    """Ratios of sub-sampling that divide the tokens of a unit's side."""
    return [
        draw(st.sampled_from([r for r in (1, 2, 4, 8) if r <= side]))
        for side in (8, 4, 2, 1)
    ]


@dataclass(frozen=True)
class Family:
    """A green backbone with its dense parent and its dense twin.

    Attributes:
        name: Shown in test ids.
        green: The class under test.
        parent: The dense class that it extends.
        twin: The class of its twin.
        micro: Arguments of a micro model.
        cases: Image sizes and arguments by name: windows and kernels that
            divide the map and that do not, maps smaller than them, one unit,
            other channels, every option of the masked forward.
        default: The case of tests that need only one: not square, with at
            least 8 units.
        options: Cases by name with options of the execution, which leave the
            result as it is.
        divided: Cases in which the parent pads nothing, so that it is the
            same as nothing masked; the first is not square.
        dense: Cases for the forward without a mask.
        mutations: Twins with one mistake each, which the comparison sees.
        waiting: Arguments with which nothing may wait for the device.
        draw: Draws arguments for an image size by a hypothesis ``draw``.
        is_frozen: Whether ``frozen_stages`` freezes a parameter, by name.
        all_outputs: Arguments that make the dense model return every stage.
        single_output: Whether it can return the last stage alone.
        unused: Beginnings of the names of parameters that a masked forward
            does not use (norms of other outputs).
        float32_noise: What float32 costs the dense twin at most.
        missing_in_parent: Ends of the names of buffers that the parent
            rebuilds on loading and then reports as missing.
    """
    name: str
    green: Callable[..., nn.Module]
    parent: Callable[..., nn.Module]
    twin: Callable[..., Twin]
    micro: Dict[str, Any]
    cases: Dict[str, Case]
    default: str
    options: Sequence[Tuple[str, Dict[str, Any]]]
    divided: Sequence[Case]
    dense: Sequence[Case]
    mutations: Sequence[Callable[..., Twin]]
    waiting: Sequence[Dict[str, Any]]
    draw: Callable[[Callable, Size], Dict[str, Any]]
    is_frozen: Callable[[str, int], bool]
    all_outputs: Dict[str, Any] = field(
        default_factory=lambda: dict(out_indices=(0, 1, 2, 3)))
    single_output: bool = False
    unused: Tuple[str, ...] = ('no parameter', )
    float32_noise: float = 1e-4
    missing_in_parent: Tuple[str, ...] = ('no buffer', )

    def __str__(self) -> str:
        return self.name

    def load_parent(self, parent: nn.Module, model: nn.Module) -> None:
        """Load the green model's state into the parent, strictly."""
        keys = parent.load_state_dict(model.state_dict(), strict=False)
        assert not keys.unexpected_keys
        assert all(
            key.endswith(self.missing_in_parent) for key in keys.missing_keys)
