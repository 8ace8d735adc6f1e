"""The cases that run every day meet every value of every parameter, and are the same each day."""

from __future__ import annotations

from itertools import product

from sampling import drawn

CASES = {f"test[{a}-{b}-{c}]": [("a", a), ("b", b), ("c", c)] for a, b, c in product(*["0123"] * 3)}


def test_each_value_of_each_parameter_is_met_where_the_number_allows_it() -> None:
    met = {feature for name in drawn(CASES, 6) for feature in CASES[name]}

    assert met == {feature for features in CASES.values() for feature in features}


def test_the_number_is_kept_and_the_order_of_the_cases_does_not_matter() -> None:
    backwards = dict(reversed(CASES.items()))

    assert len(drawn(CASES, 6)) == 6
    assert drawn(CASES, 6) == drawn(backwards, 6)
    assert drawn(CASES, 1000) == set(CASES)


def test_other_tests_draw_other_cases() -> None:
    others = {f"other {name}": features for name, features in CASES.items()}

    assert {f"other {name}" for name in drawn(CASES, 6)} != drawn(others, 6)
