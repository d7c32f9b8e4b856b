# Copyright (c) greenmim authors. All rights reserved.
"""Checks that a file has every tensor of a model, and no other."""
from dataclasses import dataclass
from typing import Sequence, Tuple

from .layouts import Tensors

SHOWN = 20
# Windows differ by more than the error of offsets saved in half precision.
HALF_PRECISION = 2e-3


@dataclass(frozen=True)
class Coverage:
    """How the tensors of a file match a model.

    Args:
        part: Name of the model in messages.
        total: Number of tensors of the model.
        matched: Number of those that the file has.
        faults: A line for each missing, unexpected or mismatched tensor.
    """
    part: str
    total: int
    matched: int
    faults: Tuple[str, ...]

    @classmethod
    def compare(cls,
                part: str,
                expected: Tensors,
                given: Tensors,
                unexpected: Sequence[str] = ()) -> 'Coverage':
        """Compare names and shapes, and the values of index buffers.

        ``unexpected`` are further names of the file, unknown to the model.
        """
        faults, matched = [], 0
        for name, ours in expected.items():
            theirs = given.get(name)
            if theirs is None:
                fault = 'missing'
            elif ours.shape != theirs.shape:
                fault = (f'expected shape {tuple(ours.shape)}, got '
                         f'{tuple(theirs.shape)}')
            elif name.endswith(
                    'relative_position_index') and not ours.equal(theirs):
                fault = 'indexes the bias table in another order'
            elif name.endswith('relative_coords_table') and not ours.allclose(
                    theirs.to(ours), atol=HALF_PRECISION):
                fault = 'holds the offsets of another window or scale'
            elif not theirs.isfinite().all():
                fault = 'not all values are finite'
            else:
                matched += 1
                continue
            faults.append(f'{part}.{name}: {fault}')
        faults += [
            f'{part}.{name}: unexpected' for name in given
            if name not in expected
        ]
        faults += [f'{name}: unexpected' for name in unexpected]
        return cls(part, len(expected), matched, tuple(faults))

    def __str__(self) -> str:
        return f'{self.part}: {self.matched} of {self.total} tensors matched'

    def require(self, what: str) -> None:
        """Raise a ValueError that names the tensors that do not match."""
        if self.faults:
            shown = self.faults[:SHOWN]
            if len(self.faults) > SHOWN:
                shown += (f'and {len(self.faults) - SHOWN} more', )
            raise ValueError('\n  '.join([
                f'expected {what}, but these tensors do not match (nothing '
                'is written):', *shown
            ]))
