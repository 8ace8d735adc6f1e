"""AutoAttack of our own parts: what it is made of, and the reference's verdicts end to end."""

from __future__ import annotations

import pytest
from in_memory import Journal, Quiet, run_suite

from satbench.attacks import attack_spec, parse_attack
from satbench.attacks.gradient.apgd import APGDCE, APGDDLR, APGDT, restarts_in, targets_in
from satbench.attacks.packages.pyautoattack_attacks import AutoAttackReference
from satbench.attacks.suites.suite import parse_suite
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.runner import SURVIVED
from satbench.models import LoadedModel


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("autoattack", "autoattack(version=standard,block=250)"),
        ("autoattack-reference", "autoattack-reference(version=standard,block=250)"),
        ("autoattack-rand", "autoattack-rand(samples=20,block=250)"),
        ("apgd-ce", "apgd-ce(steps=100,restarts=1,block=250,eot=1)"),
        ("apgd-dlr", "apgd-dlr(steps=100,restarts=1,block=250,eot=1)"),
        ("apgd-t", "apgd-t(steps=100,targets=9,block=250,eot=1)"),
    ],
)
def test_a_name_stands_for_the_published_parameters(text: str, canonical: str) -> None:
    assert attack_spec(text) == canonical


def test_our_parts_are_named_as_those_of_the_reference_so_that_they_draw_the_same_noise() -> None:
    ours = [(stage.part, stage.purpose, stage.block) for stage in parse_suite(["autoattack"])]
    reference = parse_suite(["autoattack-reference"])

    assert ours == [(stage.part, stage.purpose, stage.block) for stage in reference]


def test_our_parts_have_the_parameters_of_those_of_the_reference() -> None:
    ours = [vars(part) for _, part in parse_attack("autoattack(block=100)").parts()]
    reference = [vars(part) for _, part in AutoAttackReference(block=100).parts()]

    assert reference[:3] == ours[:3]
    assert {**reference[3], "schedule": "fixed"} == ours[3]


def test_the_parts_for_randomised_models_are_those_of_the_reference() -> None:
    ours = [(name, vars(part)) for name, part in parse_attack("autoattack-rand").parts()]

    assert ours == [(name, vars(part)) for name, part in AutoAttackReference("rand").parts()]


def test_the_number_of_samples_reaches_every_part() -> None:
    assert parse_attack("autoattack-rand(samples=5,block=7)").parts() == (
        ("apgd-ce", APGDCE(block=7, eot=5)),
        ("apgd-dlr", APGDDLR(block=7, eot=5)),
    )


def test_one_sample_is_refused_with_what_to_use() -> None:
    with pytest.raises(SatbenchError, match=r"samples of 2 or more, got 1; .* use autoattack$"):
        parse_attack("autoattack-rand(samples=1)")


@pytest.mark.parametrize("attack", [APGDCE, APGDDLR, APGDT])
@pytest.mark.parametrize("field", ["steps", "block", "eot"])
def test_a_number_below_one_is_refused(attack: type, field: str) -> None:
    with pytest.raises(SatbenchError, match=rf"^apgd-.*: expected {field} of 1 or more, got 0$"):
        attack(**{field: 0})


@pytest.mark.parametrize(
    ("threat", "eot", "restarts", "targets"),
    [("linf:0.1", 1, 1, 9), ("l2:1", 1, 1, 9), ("l1:5", 1, 5, 5), ("l1:5", 20, 1, 9)],
)
def test_defaults_mean_what_the_standard_version_has_for_the_norm(
    threat: str, eot: int, restarts: int, targets: int
) -> None:
    parsed = Threat.parse(threat)

    assert restarts_in(parsed, APGDCE().restarts, eot) == restarts
    assert targets_in(parsed, APGDT().targets, eot) == targets


def test_other_numbers_than_the_defaults_are_taken_as_given() -> None:
    assert restarts_in(Threat.parse("l1:5"), 2, 1) == 2
    assert targets_in(Threat.parse("l1:5"), 7, 1) == 7


@pytest.mark.slow
@pytest.mark.parametrize("threat", ["linf:0.1", "l2:0.75", "l1:4"])
def test_autoattack_gives_each_image_the_verdict_of_the_reference(
    threat: str, shipped: LoadedModel, fashion: Dataset
) -> None:
    images, parsed = fashion.first(60), Threat.parse(threat)

    ours, reference = (
        run_suite(
            shipped.module, images, parsed, parse_suite([f"{name}(block=40)"]), 0, 40, Journal(),
            Quiet(),
        )
        for name in ("autoattack", "autoattack-reference")
    )  # fmt: skip

    assert ours.tolist() == reference.tolist()
    assert 5 < (ours == SURVIVED).sum() < 55
