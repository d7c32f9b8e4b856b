# Copyright (c) greenmim authors. All rights reserved.
"""Images that a data set keeps out of training, to measure on them."""
import copy
from typing import Any, List, Literal, Optional, Sequence, Union

HeldOut = Union[int, Literal['auto']]

FEWEST = 100  # images of which 'auto' holds any out
SHARE, LEAST, MOST = 20, 8, 64


def number_to_hold_out(held_out: HeldOut, images: int) -> int:
    """How many images are kept out of training.

    Args:
        held_out (int | str): The number, or ``'auto'``: a twentieth, at least
            8 and at most 64, and none of fewer than 100.
        images (int): How many images there are.

    Raises:
        ValueError: If it is no such number, or leaves none to train on.
    """
    if held_out == 'auto':
        return (0 if images < FEWEST else min(
            max(images // SHARE, LEAST), MOST))
    if not isinstance(held_out, int) or not 0 <= held_out < images:
        raise ValueError("expected held_out='auto', or a number from 0 to "
                         f'{images - 1}, below that of the images, got '
                         f'{held_out!r}')
    return held_out


class HoldsOut:
    """A data set of MMEngine that keeps some of its images for itself.

    Its length and samples are those of the other images. The samples of one
    image, windows for example, are kept together.
    """

    held_out: HeldOut = 0

    def filter_data(self) -> List[dict]:
        """Take the images out, evenly spaced in the order of the list."""
        rows: List[dict] = super().filter_data()  # type: ignore[misc]
        self._kept_out: Sequence[dict] = []
        if self.held_out == 0:
            return rows
        names = list(dict.fromkeys(row['img_path'] for row in rows))
        number = number_to_hold_out(self.held_out, len(names))
        chosen = {names[i * len(names) // number] for i in range(number)}
        self._kept_out = [row for row in rows if row['img_path'] in chosen]
        return [row for row in rows if row['img_path'] not in chosen]

    def held_out_part(self) -> Optional[Any]:
        """The images kept out, loaded alike; None where there are none."""
        self.full_init()  # type: ignore[attr-defined]
        if not self._kept_out:
            return None
        part: Any = copy.copy(self)
        part.held_out, part.serialize_data = 0, False
        part.data_list = list(self._kept_out)
        part._kept_out = []
        return part


def held_out_part(dataset: Any) -> Optional[Any]:
    """The images that a data set keeps out of training.

    Args:
        dataset (Dataset): Any data set.

    Returns:
        Dataset | None: None where there are none.
    """
    part = getattr(dataset, 'held_out_part', None)
    return None if part is None else part()
