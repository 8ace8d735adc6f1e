from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satbench.core.errors import SatbenchError
from satbench.core.limits import MOST_SPEC_FLOAT, MOST_SPEC_NUMBER
from satbench.core.specs import build, spec_of, split_spec
from satbench.core.threat import Length

QUARTER = Length(Fraction(1, 4), relative=True)


@dataclass(frozen=True)
class Toy:
    steps: int = 3
    step: Length = QUARTER
    rate: float = 0.5
    keep: Literal["any", "last"] = "any"
    fast: bool = False
    title: str = "toy"
    hidden: int = field(init=False, default=7)


@dataclass(frozen=True)
class Bare:
    pass


toys = st.builds(
    Toy,
    steps=st.integers(-MOST_SPEC_NUMBER, MOST_SPEC_NUMBER),
    step=st.builds(Length, st.fractions(min_value=Fraction(1, 999), max_value=999), st.booleans()),
    rate=st.floats(-MOST_SPEC_FLOAT, MOST_SPEC_FLOAT),
    keep=st.sampled_from(["any", "last"]),
    fast=st.booleans(),
    title=st.from_regex(r"[a-z][a-z0-9_.-]*", fullmatch=True),
)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(toys)
def test_a_thing_is_built_back_from_its_spec(toy: Toy) -> None:
    name, arguments = split_spec(spec_of("toy", toy))

    assert (name, build(Toy, name, arguments)) == ("toy", toy)


def test_the_spec_lists_every_parameter_in_order() -> None:
    expected = "toy(steps=3,step=eps/4,rate=0.5,keep=any,fast=false,title=toy)"

    assert spec_of("toy", Toy()) == expected


def test_the_spec_of_a_thing_without_parameters_is_its_name() -> None:
    assert spec_of("bare", Bare()) == "bare"


def test_a_float_keeps_all_its_digits_in_the_spec() -> None:
    assert "rate=0.12345678901" in spec_of("toy", Toy(rate=0.12345678901))


def test_missing_parameters_take_their_defaults() -> None:
    assert build(Toy, "toy", {"steps": "9"}) == Toy(steps=9)


@pytest.mark.parametrize("text", ["toy", " toy ", "toy()", "toy( )"])
def test_a_name_alone_has_no_arguments(text: str) -> None:
    assert split_spec(text) == ("toy", {})


def test_spaces_and_line_ends_in_a_spec_do_not_matter() -> None:
    assert split_spec(" toy ( steps = 9 ,\n fast=true )") == ("toy", {"steps": "9", "fast": "true"})


@pytest.mark.parametrize("text", ["", "(steps=3)", "toy(steps=3", "toy steps=3", "9toy"])
def test_a_text_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(SatbenchError, match=r"expected NAME or NAME\(parameter=value,…\), got"):
        split_spec(text)


@pytest.mark.parametrize("part", ["20", "steps=", "=20"])
def test_an_argument_without_name_or_value_is_refused(part: str) -> None:
    with pytest.raises(SatbenchError, match=rf"expected parameter=value in .*, got '{part}'"):
        split_spec(f"toy({part})")


def test_a_parameter_given_twice_is_refused() -> None:
    with pytest.raises(SatbenchError, match=r"parameter 'steps' is given twice in"):
        split_spec("toy(steps=1,steps=2)")


def test_an_unknown_parameter_suggests_the_nearest() -> None:
    with pytest.raises(
        SatbenchError, match=r"unknown parameter of toy 'ratee': did you mean 'rate'\?"
    ):
        build(Toy, "toy", {"ratee": "9"})


def test_a_field_that_is_no_parameter_cannot_be_given() -> None:
    with pytest.raises(SatbenchError, match=r"unknown parameter of toy 'hidden'"):
        build(Toy, "toy", {"hidden": "9"})


@pytest.mark.parametrize(
    ("key", "text", "wanted"),
    [
        ("steps", "many", "expected int, got 'many'"),
        ("steps", "1.5", "expected int, got '1.5'"),
        ("rate", "fast", "expected float, got 'fast'"),
        ("keep", "first", "expected one of any, last, got 'first'"),
        ("fast", "1", "expected true or false, got '1'"),
    ],
)
def test_a_bad_value_is_refused_where_it_stands(key: str, text: str, wanted: str) -> None:
    with pytest.raises(SatbenchError, match=rf"^toy\({key}=…\): {wanted}$"):
        build(Toy, "toy", {key: text})
