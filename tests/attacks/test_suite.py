from __future__ import annotations

import pytest

from satbench.attacks import attack_spec, parse_attack
from satbench.attacks.gradient.pgd import PGD
from satbench.attacks.suites.suite import parse_suite
from satbench.core.errors import SatbenchError
from satbench.core.threat import Length


def test_stages_come_in_the_order_given() -> None:
    assert [stage.spec for stage in parse_suite(["square", "pgd-2", "fab-t"])] == [
        "square(queries=5000,block=250)",
        "pgd(steps=2,step=eps/4,restarts=1,start=uniform,keep=any)",
        "fab-t(steps=100,targets=9,block=250)",
    ]


def test_autoattack_is_four_stages_of_one_spec() -> None:
    stages = parse_suite(["autoattack(block=100)"])

    assert {stage.spec for stage in stages} == {"autoattack(version=standard,block=100)"}
    assert [stage.part for stage in stages] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert [stage.block for stage in stages] == [100] * 4


def test_a_title_is_short_and_names_the_part() -> None:
    stages = parse_suite(["pgd(steps=7)", "autoattack", "square(block=250,queries=10)"])

    assert [stage.title for stage in stages] == [
        "pgd-7",
        "autoattack/apgd-ce",
        "autoattack/apgd-t",
        "autoattack/fab-t",
        "autoattack/square",
        "square(queries=10)",
    ]


@pytest.mark.parametrize("part", ["apgd-ce", "apgd-t", "fab-t", "square"])
def test_a_part_of_autoattack_is_the_attack_of_that_name(part: str) -> None:
    (inner,) = (stage for stage in parse_suite(["autoattack"]) if stage.part == part)
    (alone,) = parse_suite([part])

    assert (inner.attack, inner.purpose) == (alone.attack, alone.purpose)


def test_pgd_of_any_length_draws_the_same_noise() -> None:
    assert [stage.purpose for stage in parse_suite(["pgd-20", "pgd(steps=50)"])] == ["pgd", "pgd"]


def test_pgd_needs_no_block() -> None:
    assert parse_suite(["pgd-20"])[0].block is None


def test_an_empty_suite_is_refused_with_an_example() -> None:
    with pytest.raises(SatbenchError, match=r"at least one attack, such as --attack pgd-50, got"):
        parse_suite([])


@pytest.mark.parametrize("again", ["pgd-20", "pgd(steps=20)", "pgd", "pgd(step=0.25*eps)"])
def test_an_attack_given_twice_is_refused_however_it_is_spelled(again: str) -> None:
    with pytest.raises(SatbenchError, match=r"^the attack pgd\(steps=20,.*\) is given twice$"):
        parse_suite(["pgd-20", again])


def test_the_short_form_of_pgd_takes_further_parameters() -> None:
    assert parse_attack("pgd-200(step=1/255,keep=last)") == PGD(
        steps=200, step=Length.parse("1/255"), keep="last"
    )


@pytest.mark.parametrize("text", ["pgd-40", " pgd-40 ", "pgd-40()", "pgd-40( )", "pgd(steps=40)"])
def test_the_short_form_of_pgd_is_spelled_out(text: str) -> None:
    assert attack_spec(text) == "pgd(steps=40,step=eps/4,restarts=1,start=uniform,keep=any)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pdg", r"^unknown attack 'pdg': did you mean 'pgd'\?$"),
        ("autoatack", r"^unknown attack 'autoatack': did you mean 'autoattack'\?$"),
        ("pgd(step_size=1/255)", r"^unknown parameter of pgd 'step_size': did you mean 'steps'\?$"),
        ("pgd(steps=4.5)", r"^pgd\(steps=…\): expected int, got '4\.5'$"),
        ("pgd(keep=best)", r"^pgd\(keep=…\): expected one of any, last, got 'best'$"),
        ("pgd(steps=0)", r"^pgd: expected steps of 1 or more, got 0$"),
        ("pgd-0", r"^pgd: expected steps of 1 or more, got 0$"),
        ("pgd(restarts=-1)", r"^pgd: expected restarts of 1 or more, got -1$"),
        ("pgd(step=0)", r"^expected a length such as eps/4, 1\.25\*eps or 1/255, above 0, got '0'"),
        ("pgd-5(steps=6)", r"^parameter 'steps' is given twice"),
        ("pgd(steps=5", r"^expected NAME or NAME\(parameter=value,…\), got 'pgd\(steps=5'$"),
        ("pgd 5", r"^expected NAME or NAME\(parameter=value,…\), got 'pgd 5'$"),
        ("square(queries=0)", r"^square: expected queries of 1 or more, got 0$"),
        ("apgd-ce(restarts=0)", r"^apgd-ce: expected restarts of 1 or more, got 0$"),
        ("apgd-t(targets=0)", r"^apgd-t: expected targets of 1 or more, got 0$"),
        ("fab-t(steps=0)", r"^fab-t: expected steps of 1 or more, got 0$"),
        ("autoattack(block=0)", r"^autoattack: expected block of 1 or more, got 0$"),
        ("autoattack(version=plus)", r"^autoattack\(version=…\): expected one of standard, got"),
    ],
)
def test_a_bad_attack_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        parse_suite([text])
