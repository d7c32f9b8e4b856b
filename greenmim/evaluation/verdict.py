# Copyright (c) greenmim authors. All rights reserved.
"""Is it learning? A verdict from measurements during a run."""
from math import isfinite
from typing import NamedTuple, Sequence

# With a smaller rank or spread, features separate images no better than a few
# tints would.
MIN_RANK = 2.
MIN_SPREAD = 1e-3
MIN_CHANGE = 1e-4


class Verdict(NamedTuple):
    """One of the words below and the reason."""
    word: str
    reason: str


TOO_EARLY = 'too early to tell'
IMPROVING = 'still improving'
FLAT = 'flat'
COLLAPSING = 'collapsing'


def judge(losses: Sequence[float],
          ranks: Sequence[float],
          spreads: Sequence[float],
          changes: Sequence[float],
          patience: int = 5,
          min_gain: float = 1e-3) -> Verdict:
    """Judge a run by its measurements so far, in order.

    The first of these rules that applies decides:

    1. *collapsing*: loss or rank is not finite.
    2. *too early to tell*: there is one measurement.
    3. *collapsing*: the rank is below 2 or the spread below 0.001.
    4. *flat*: the features changed by less than 0.0001 in each of the last
       ``patience`` intervals: the encoder does not change, even if the
       decoder does.
    5. *still improving*: the best of the last ``patience`` losses (of all but
       the first if there are fewer) is lower than the best before by more
       than ``min_gain`` of it.
    6. *collapsing*: the rank is below a quarter of its maximum. The first
       measurement does not count: random weights separate images too, and
       the rank falls when learning begins.
    7. *too early to tell*: there are ``patience`` measurements or fewer.
    8. *flat*.

    Args:
        losses (Sequence[float]): Held-out loss.
        ranks (Sequence[float]): See :func:`.effective_rank`.
        spreads (Sequence[float]): See :func:`.relative_spread`.
        changes (Sequence[float]): Change of the features since the previous
            measurement, relative to their size.
        patience (int): Measurements in which the loss has to fall. Defaults
            to 5.
        min_gain (float): Relative decrease of the loss that counts. Defaults
            to 0.001.

    Returns:
        Verdict: The word and the reason.
    """
    loss, rank = losses[-1], ranks[-1]
    if not isfinite(loss) or not isfinite(rank):
        return Verdict(COLLAPSING, f'loss {loss:g}, rank {rank:g}')
    if len(losses) == 1:
        return Verdict(TOO_EARLY, 'the first measurement')
    if rank < MIN_RANK or spreads[-1] < MIN_SPREAD:
        return Verdict(
            COLLAPSING, f'images differ by {spreads[-1]:.2g} of their '
            f'features in {rank:.3g} directions')
    recent = changes[-patience:]
    if len(recent) == patience and max(recent) < MIN_CHANGE:
        return Verdict(
            FLAT, f'the features changed by less than {MIN_CHANGE:g} in '
            f'{patience} intervals; is the encoder frozen or the learning '
            'rate 0?')
    split = max(1, len(losses) - patience)
    before, since = min(losses[:split]), min(losses[split:])
    intervals = len(losses) - split
    gain = (f'from {before:.4g} to {since:.4g} in {intervals} interval' + 's' *
            (intervals > 1))
    highest = max(ranks[1:])
    if since < before * (1 - min_gain):
        return Verdict(IMPROVING, f'the best loss fell {gain}')
    if rank < highest / 4:
        return Verdict(
            COLLAPSING, f'the features vary in {rank:.3g} directions, down '
            f'from {highest:.3g}, and the loss does not fall')
    if len(losses) <= patience:
        return Verdict(TOO_EARLY, f'{len(losses) - 1} of {patience} intervals')
    return Verdict(FLAT, f'the best loss went {gain}')
