from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satbench.core.errors import SatbenchError
from satbench.core.stats.intervals import holm, mcnemar_p, paired_t_interval, wilson_interval

FEW = settings(max_examples=30, deadline=None)
P_VALUES = st.lists(st.floats(0, 1), max_size=12)


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0000, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_interval_gives_the_values_of_newcombe_1998_table_1_method_3(
    successes: int, n: int, expected: tuple[float, float]
) -> None:
    low, high = wilson_interval(successes, n)

    assert expected == (round(low, 4), round(high, 4))


@FEW
@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_stays_in_0_to_1(counts: tuple[int, int]) -> None:
    successes, n = counts
    low, high = wilson_interval(successes, n)

    assert 0 <= low <= successes / n <= high <= 1


@FEW
@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_of_the_failures_is_its_mirror_image(counts: tuple[int, int]) -> None:
    successes, n = counts
    low, high = wilson_interval(successes, n)

    assert wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_interval_refuses_a_count_that_is_none(successes: int, n: int) -> None:
    with pytest.raises(SatbenchError, match=f"got {successes} of {n}"):
        wilson_interval(successes, n)


def _pair(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, ...]:
    counts = [both, only_first, only_second, neither]
    first = np.repeat([True, True, False, False], counts)
    return first, np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(
    ("only_first", "only_second", "expected"),
    [
        (1, 9, 2 * (1 + 10) / 2**10),  # by hand: twice the lower tail of Binomial(10, 1/2)
        (9, 1, 2 * (1 + 10) / 2**10),
        (0, 5, 2 * 1 / 2**5),
        (2, 6, 2 * (1 + 8 + 28) / 2**8),
        (4, 4, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_p_is_twice_the_binomial_tail_of_the_discordant_images(
    only_first: int, only_second: int, expected: float
) -> None:
    assert mcnemar_p(*_pair(30, only_first, only_second, 20)) == pytest.approx(expected, rel=1e-12)


@FEW
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_p_does_not_depend_on_images_that_both_have_right_or_wrong(
    only_first: int, only_second: int, agreed: int
) -> None:
    expected = mcnemar_p(*_pair(0, only_first, only_second, 0))

    assert expected == mcnemar_p(*_pair(agreed, only_first, only_second, 2 * agreed))


def test_mcnemar_p_refuses_verdicts_on_different_images() -> None:
    with pytest.raises(SatbenchError, match="expected the same images"):
        mcnemar_p(np.ones(3, bool), np.ones(4, bool))


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        # By hand: the least times 3, the next times 2, the last times 1, never decreasing.
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.04, 0.005, 0.01, 0.03], [0.06, 0.02, 0.03, 0.06]),
        ([0.6, 0.7], [1.0, 1.0]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm_multiplies_by_the_number_of_hypotheses_that_are_left(
    p_values: list[float], expected: list[float]
) -> None:
    assert holm(p_values) == pytest.approx(expected, rel=1e-12)


@FEW
@given(P_VALUES)
def test_holm_never_makes_a_p_value_smaller(p_values: list[float]) -> None:
    adjusted = holm(p_values)

    assert all(p <= after <= 1 for p, after in zip(p_values, adjusted, strict=True))


@FEW
@given(P_VALUES, st.randoms(use_true_random=False))
def test_holm_adjusts_the_same_p_value_alike_wherever_it_stands(p_values, random) -> None:
    places = list(range(len(p_values)))
    random.shuffle(places)
    expected = holm(p_values)

    assert [expected[i] for i in places] == holm([p_values[i] for i in places])


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        # Student's t at 0.975: 12.7062 for 1 degree of freedom, 4.30265 for 2 (any t table).
        ([1.0, 3.0], (2 - 12.7062, 2 + 12.7062)),
        ([1.0, 2.0, 3.0], (2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5)),
        ([0.5, 0.5, 0.5], (0.5, 0.5)),
    ],
)
def test_paired_t_interval_is_the_mean_and_t_standard_errors_on_either_side(
    differences: list[float], expected: tuple[float, float]
) -> None:
    assert paired_t_interval(differences) == pytest.approx(expected, abs=1e-4)


def test_paired_t_interval_refuses_a_single_difference() -> None:
    with pytest.raises(SatbenchError, match="two or more paired differences, got 1"):
        paired_t_interval([0.1])
