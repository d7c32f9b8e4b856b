# Copyright (c) greenmim authors. All rights reserved.
"""Whether every tensor of a model is there, and nothing else."""
from dataclasses import dataclass
from typing import Tuple

from .layouts import Tensors

SHOWN = 20
# Offsets of a file in half precision still tell windows apart.
HALF_PRECISION = 2e-3


@dataclass(frozen=True)
class Coverage:
    """How given tensors match those of a model.

    Args:
        part: Which model, for messages.
        total: Number of tensors that the model has.
        matched: Number of those that are given as they should be.
        faults: A line for each tensor that is not.
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
                homeless: Tuple[str, ...] = ()) -> 'Coverage':
        """Compare names, shapes and, of index buffers, values.

        Args:
            part: Name of the model, which begins its tensors' names.
            expected: The model's tensors.
            given: Those of a file, in the model's names.
            homeless: Names in the file that have none in the model.
        """
        faults, matched = [], 0
        for name, ours in expected.items():
            theirs = given.get(name)
            if theirs is None:
                faults.append(f'{part}.{name}: missing')
            elif ours.shape != theirs.shape:
                faults.append(f'{part}.{name}: expected shape '
                              f'{tuple(ours.shape)}, got '
                              f'{tuple(theirs.shape)}')
            elif name.endswith(
                    'relative_position_index') and not ours.equal(theirs):
                faults.append(f'{part}.{name}: indexes the bias table in '
                              'another order')
            elif name.endswith('relative_coords_table') and not ours.allclose(
                    theirs.to(ours), atol=HALF_PRECISION):
                faults.append(f'{part}.{name}: holds the offsets of another '
                              'window or scale')
            elif not theirs.isfinite().all():
                faults.append(f'{part}.{name}: not all values are finite')
            else:
                matched += 1
        faults += [
            f'{part}.{name}: unknown' for name in given if name not in expected
        ]
        faults += [f'{name}: unknown' for name in homeless]
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
