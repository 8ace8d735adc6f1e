"""Intervals that are valid at all sample sizes together, and bounds on unseen images."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satbench.core.errors import SatbenchError
from satbench.core.stats.intervals import (
    confidence_sequence,
    pooled_unseen_bound,
    unseen_bound,
)

FEW = settings(max_examples=50, deadline=None)
ALPHA = Fraction(1, 20)

sequence = cache(confidence_sequence)


def _probability(k: int, drawn: int, successes: int, population: int) -> Fraction:
    """Return the hypergeometric probability of so many of `k` among those drawn."""
    ways = comb(successes, k) * comb(population - successes, drawn - k)
    return Fraction(ways, comb(population, drawn))


@st.composite
def _looks(draw: st.DrawFn) -> tuple[int, int, int]:
    population = draw(st.integers(1, 3000))
    n = draw(st.integers(0, population))
    return draw(st.integers(0, n)), n, population


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_all_intervals_of_a_random_order_hold_the_truth_together_in_95_of_100_orders(
    share: float,
) -> None:
    population, orders = 60, 400
    images = np.arange(population) < share * population
    draws = np.random.default_rng(7)
    kept = 0
    for _ in range(orders):
        counts = np.cumsum(draws.permutation(images)).tolist()
        intervals = [sequence(s, n, population) for n, s in enumerate(counts, 1)]
        kept += all(low <= images.mean() <= high for low, high in intervals)

    assert kept >= 0.95 * orders


@pytest.mark.parametrize("population", [1, 2, 9, 25])
def test_just_the_counts_of_which_the_posterior_is_over_a_twentieth_of_the_prior_are_kept(
    population: int,
) -> None:
    for n in range(population + 1):
        for s in range(n + 1):
            likelihoods = [_probability(s, n, k, population) for k in range(population + 1)]
            mean = sum(likelihoods) / (population + 1)  # the uniform prior's evidence
            kept = [k for k, one in enumerate(likelihoods) if one > ALPHA * mean]
            expected = (kept[0] / population, kept[-1] / population)

            assert expected == confidence_sequence(s, n, population)


@FEW
@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_all_images_is_the_share(counts: tuple[int, int]) -> None:
    successes, n = counts

    assert (successes / n,) * 2 == confidence_sequence(successes, n, n)


@FEW
@given(_looks())
def test_an_interval_holds_the_share_seen_and_no_share_that_is_impossible(
    look: tuple[int, int, int],
) -> None:
    successes, n, population = look
    low, high = confidence_sequence(*look)

    assert successes <= low * population + 1e-6
    assert high * population - 1e-6 <= population - (n - successes)
    if n:
        assert low - 0.5 / population <= successes / n <= high + 0.5 / population


@FEW
@given(_looks())
def test_the_interval_of_the_failures_is_the_mirror_image(look: tuple[int, int, int]) -> None:
    successes, n, population = look
    low, high = confidence_sequence(successes, n, population)

    mirrored = confidence_sequence(n - successes, n, population)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


@FEW
@given(_looks().filter(lambda look: look[0] < look[1]))
def test_one_success_more_lowers_neither_end(look: tuple[int, int, int]) -> None:
    successes, n, population = look
    low, high = confidence_sequence(successes, n, population)
    more_low, more_high = confidence_sequence(successes + 1, n, population)

    assert (more_low >= low, more_high >= high) == (True, True)


def test_the_interval_of_a_share_narrows_with_more_images() -> None:
    widths = [high - low for low, high in (sequence(n // 2, n, 2000) for n in range(0, 2001, 100))]

    assert widths == sorted(widths, reverse=True)
    assert (widths[0], widths[-1]) == (1.0, 0.0)


@pytest.mark.parametrize("look", [(-1, 5, 9), (6, 5, 9), (3, 10, 9), (0, 0, 0)])
def test_an_invalid_count_has_no_interval(look: tuple[int, int, int]) -> None:
    with pytest.raises(SatbenchError, match=r"^expected a count among n of a population, got "):
        confidence_sequence(*look)


# The bound on what a sample did not show


@pytest.mark.parametrize("left", [*range(13), 30])
def test_the_bound_is_the_largest_count_that_5_percent_of_samples_would_show_as_little_of(
    left: int,
) -> None:
    for sampled in range(left + 1):
        for broken in range(sampled + 1):
            feasible = range(broken, left - (sampled - broken) + 1)
            probable = [
                k
                for k in feasible
                if sum(_probability(i, sampled, k, left) for i in range(broken + 1)) >= ALPHA
            ]

            assert max(probable) == unseen_bound(broken, sampled, left)


@pytest.mark.parametrize(
    ("broken", "sampled", "left", "expected"),
    [(0, 0, 0, 0), (0, 0, 7, 7), (0, 7, 7, 0), (7, 7, 7, 7), (2, 7, 7, 2), (1, 1, 9, 9)],
)
def test_the_bound_of_no_sample_and_of_a_whole_one(
    broken: int, sampled: int, left: int, expected: int
) -> None:
    assert expected == unseen_bound(broken, sampled, left)


def test_a_clean_sample_of_n_leaves_about_3_in_n() -> None:
    assert 290 <= unseen_bound(0, 100, 10_000) <= 300


@pytest.mark.parametrize("counts", [(-1, 5, 9), (6, 5, 9), (1, 10, 9)])
def test_an_invalid_sample_has_no_bound(counts: tuple[int, int, int]) -> None:
    with pytest.raises(SatbenchError, match=r"^expected a sample's count, got "):
        unseen_bound(*counts)


# The same of several samples


@pytest.mark.parametrize(
    "strata",
    [
        [(0, 9, 30), (12, 9, 30)],
        [(3, 5, 40), (0, 10, 50), (9, 5, 20)],
        [(1, 20, 300)] * 6,
        [(30, 2, 31), (0, 20, 300), (0, 20, 300)],
        [(15, 1, 30)] * 4,
        [(0, 8, 8), (8, 8, 8), (2, 3, 9)],
        [(4, 0, 6), (1, 4, 12)],
        [(12, 4, 60), (0, 20, 30)],
    ],
)
def test_the_bound_on_several_samples_holds_in_95_percent_of_draws(
    strata: list[tuple[int, int, int]],
) -> None:
    """Exactly: the number broken in all is a sum of hypergeometric ones, (breakable, n, left)."""
    chances = np.ones(1)
    for breakable, sampled, left in strata:
        one = [_probability(i, sampled, breakable, left) for i in range(sampled + 1)]
        chances = np.convolve(chances, one)
    unseen = sum(breakable for breakable, _, _ in strata)
    holds = 0.0
    for total, chance in enumerate(chances):
        if chance > 0 and unseen - total <= pooled_unseen_bound(_spread(total, strata)) + 1e-9:
            holds += chance

    assert holds >= 0.95


def _spread(total: int, strata: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return samples with `total` broken images among them; where does not matter."""
    samples = []
    for _, sampled, left in strata:
        broken = min(total, sampled)
        samples.append((broken, sampled, left))
        total -= broken
    return samples


def test_samples_bound_each_other_as_one_large_one_would() -> None:
    alone = unseen_bound(0, 20, 300)
    together = pooled_unseen_bound([(0, 20, 300)] * 50) / 50

    assert alone > 35
    assert together == pytest.approx(300 * 0.003, rel=0.01)


def test_what_a_sample_broke_raises_the_bound() -> None:
    bounds = [pooled_unseen_bound([(k, 20, 300), (0, 20, 300)]) for k in range(21)]

    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[1] < 560


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([], 0.0),
        ([(0, 0, 0), (3, 7, 7)], 0.0),
        ([(0, 0, 7)], 7.0),
        ([(0, 0, 7), (1, 1, 9)], 15.0),
        ([(2, 3, 300)], 297.0),
    ],
)
def test_complete_samples_leave_no_image_and_no_sample_leaves_all(
    samples: list[tuple[int, int, int]], expected: float
) -> None:
    assert expected == pooled_unseen_bound(samples)


def test_one_invalid_sample_gives_no_bound() -> None:
    with pytest.raises(SatbenchError, match=r"^expected a sample's count, got 6 of 5 of 9$"):
        pooled_unseen_bound([(0, 5, 9), (6, 5, 9)])
