# Copyright (c) greenmim authors. All rights reserved.
"""Every rule of the verdict, on series of measurements."""
import pytest

from greenmim.evaluation import judge

NAN = float('nan')
FALLING = [1., .9, .8, .7, .6, .5, .4]


def verdict(losses, ranks=None, spreads=None, changes=None, **options):
    number = len(losses)
    return judge(losses, ranks or [9.] * number, spreads or [.5] * number,
                 [.1] * (number - 1) if changes is None else changes,
                 **options).word


@pytest.mark.parametrize('number', range(2, 8))
def test_falling_loss(number):
    assert verdict(FALLING[:number]) == 'still improving'


def test_first_measurement():
    assert verdict([1.]) == 'too early to tell'
    assert verdict([1.], ranks=[1.]) == 'too early to tell'


@pytest.mark.parametrize('number', range(2, 9))
def test_level_loss_is_flat_after_some_intervals(number):
    expected = 'too early to tell' if number <= 5 else 'flat'
    assert verdict([1.] * number) == expected
    rising = [1. + i / 10 for i in range(number)]
    assert verdict(rising) == expected


def test_what_counts_as_progress():
    stuck = [*FALLING, .45, .41, .4, .43, .5]
    assert verdict(stuck) == 'flat'
    assert verdict(stuck, patience=6) == 'still improving'
    assert verdict([*stuck, .3997]) == 'flat'
    assert verdict([*stuck, .3995]) == 'still improving'
    assert verdict([*stuck, .3995], min_gain=.01) == 'flat'


def test_standing_encoder_is_flat_though_the_decoder_learns():
    still = [.1] + [1e-6] * 5
    assert verdict(FALLING, changes=still) == 'flat'
    assert verdict(FALLING, changes=still[:-1]) == 'still improving'
    assert verdict(FALLING, changes=[1e-6] * 5 + [1e-3]) == 'still improving'
    # After a resumption the first change is not known.
    assert verdict(FALLING, changes=[0.] * 5) == 'flat'


@pytest.mark.parametrize('collapse', [
    dict(ranks=[9.] * 6 + [1.9]),
    dict(ranks=[9.] * 6 + [0.]),
    dict(ranks=[9.] * 6 + [NAN]),
    dict(spreads=[.5] * 6 + [9e-4]),
])
def test_collapse_shows_while_the_loss_falls(collapse):
    assert verdict(FALLING, **collapse) == 'collapsing'


def test_loss_that_is_not_finite():
    assert verdict([*FALLING, NAN]) == 'collapsing'
    assert verdict([float('inf')]) == 'collapsing'


def test_shrinking_rank_counts_where_the_loss_does_not_fall():
    ranks = [4., 12., 12., 12., 12., 12., 2.9]
    assert verdict(FALLING, ranks=ranks) == 'still improving'
    assert verdict([.5] * 7, ranks=ranks) == 'collapsing'
    assert verdict([.5] * 7, ranks=[*ranks[:-1], 3.1]) == 'flat'


def test_rank_of_random_weights_does_not_count():
    """As measured in a run that learnt."""
    ranks = [16.1, 7.4, 6.4, 5.1, 5.1, 5.1, 3.9]
    assert verdict([.5] * 7, ranks=ranks) == 'flat'


def test_reason_names_the_figures():
    reason = judge(FALLING, [9.] * 7, [.5] * 7, [.1] * 6).reason
    assert reason == 'the best loss fell from 0.9 to 0.4 in 5 intervals'
    reason = judge(FALLING[:2], [9.] * 2, [.5] * 2, [.1]).reason
    assert reason == 'the best loss fell from 1 to 0.9 in 1 interval'
