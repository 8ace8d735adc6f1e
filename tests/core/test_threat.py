from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satbench.core.errors import SatbenchError
from satbench.core.limits import LEAST_LENGTH, MOST_LENGTH
from satbench.core.threat import Length, Threat, show_fraction

fixed = settings(deadline=None, derandomize=True, max_examples=100)
fractions = st.fractions(min_value=Fraction(LEAST_LENGTH), max_value=1)
any_fraction = st.fractions(min_value=Fraction(1, 10**9), max_value=10**9)
lengths = st.fractions(min_value=Fraction(LEAST_LENGTH), max_value=Fraction(MOST_LENGTH))


@fixed
@given(fractions)
def test_a_threat_is_read_back_from_its_text(eps: Fraction) -> None:
    threat = Threat("linf", eps)

    assert Threat.parse(str(threat)) == threat


@fixed
@given(any_fraction)
def test_a_fraction_is_read_back_from_its_text(value: Fraction) -> None:
    assert Fraction(show_fraction(value)) == value


@fixed
@given(lengths, st.booleans())
def test_a_length_is_read_back_from_its_text(value: Fraction, relative: bool) -> None:
    length = Length(value, relative)

    assert Length.parse(str(length)) == length


@pytest.mark.parametrize(
    ("eps", "shown"),
    [
        ("8/255", "8/255"),
        ("0.1", "0.1"),
        ("1/10", "0.1"),
        ("1/51", "5/255"),
        ("0.2", "0.2"),
        ("1", "1"),
        ("1/7", "1/7"),
        ("0.0001", "0.0001"),
        ("0.12345678", "0.12345678"),
        ("0.00001", "1/100000"),
    ],
)
def test_eps_is_shown_as_people_write_it(eps: str, shown: str) -> None:
    assert str(Threat.of("linf", eps)) == f"linf:{shown}"


@pytest.mark.parametrize("grey", [1, 2, 4, 8, 16, 100, 255])
def test_a_float_of_n_over_255_is_taken_exactly(grey: int) -> None:
    assert Threat.of("linf", grey / 255) == Threat("linf", Fraction(grey, 255))


def test_a_float_off_the_grey_levels_is_taken_for_its_shortest_decimal() -> None:
    assert Threat.of("linf", 0.031).eps == Fraction(31, 1000)


def test_norms_are_read_in_any_case() -> None:
    assert Threat.parse("L2:0.5") == Threat("l2", Fraction(1, 2))


def test_equal_radii_make_equal_threats() -> None:
    assert Threat.parse("linf:0.1") == Threat.parse("linf:1/10")


def test_the_radius_is_a_float() -> None:
    assert Threat.parse("linf:8/255").radius == 8 / 255


@pytest.mark.parametrize("text", ["l3:1", "linf", "linf 8/255", "", ":0.1"])
def test_a_text_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(SatbenchError, match=r"expected NORM:EPS such as linf:8/255, got "):
        Threat.parse(text)


@pytest.mark.parametrize("eps", ["eight", "8/0", "", "nan", "inf"])
def test_an_eps_that_is_no_number_is_refused(eps: str) -> None:
    with pytest.raises(SatbenchError, match=r"expected eps such as 8/255 or 0\.03, got "):
        Threat.parse(f"linf:{eps}")


def test_a_float_eps_that_is_not_finite_is_refused() -> None:
    with pytest.raises(SatbenchError, match=r"expected eps such as 8/255 or 0\.03, got 'nan'"):
        Threat.of("linf", float("nan"))


@pytest.mark.parametrize("eps", ["0", "-0.1"])
def test_an_eps_not_above_zero_is_refused(eps: str) -> None:
    with pytest.raises(SatbenchError, match=rf"expected eps above 0, got {eps}$"):
        Threat.parse(f"linf:{eps}")


def test_an_eps_in_grey_levels_is_refused_with_the_remedy() -> None:
    with pytest.raises(SatbenchError, match=r"at most 1 .* got 8; write 8/255"):
        Threat.of("linf", 8)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_an_l2_or_l1_eps_above_one_is_allowed(norm: str) -> None:
    assert Threat.parse(f"{norm}:12").eps == 12


@pytest.mark.parametrize(("norm", "most"), [("l2", 1000), ("l1", 100_000)])
def test_an_eps_beyond_all_pixels_is_refused(norm: str, most: int) -> None:
    with pytest.raises(SatbenchError, match=rf"expected eps at most {most} \({norm}, "):
        Threat.parse(f"{norm}:{most + 1}")


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(SatbenchError, match=r"expected a norm among linf, l2 and l1, got 'l7'"):
        Threat.of("l7", "0.1")


def test_an_inexact_eps_cannot_make_a_threat() -> None:
    with pytest.raises(TypeError, match=r"eps must be a Fraction, got float"):
        Threat("linf", 0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eps", Length(Fraction(1), True)),
        ("eps/4", Length(Fraction(1, 4), True)),
        ("1.25*eps", Length(Fraction(5, 4), True)),
        ("1.25 * eps", Length(Fraction(5, 4), True)),
        ("2/3*eps", Length(Fraction(2, 3), True)),
        ("2*eps/3", Length(Fraction(2, 3), True)),
        ("1/255", Length(Fraction(1, 255), False)),
        ("0.01", Length(Fraction(1, 100), False)),
    ],
)
def test_a_length_is_read_from_what_people_write(text: str, expected: Length) -> None:
    assert Length.parse(text) == expected


@pytest.mark.parametrize("text", ["eps/0", "four", "eps*2", "1..2*eps", "0", "-1/255", "0*eps", ""])
def test_a_text_that_is_no_length_above_zero_is_refused(text: str) -> None:
    with pytest.raises(SatbenchError, match=r"expected a length such as eps/4, 1\.25\*eps or"):
        Length.parse(text)


def test_a_relative_length_grows_with_eps() -> None:
    assert Length.parse("eps/4").within(Threat.parse("linf:0.1")) == 0.025


def test_an_absolute_length_does_not_depend_on_eps() -> None:
    assert Length.parse("0.01").within(Threat.parse("linf:0.1")) == 0.01
