"""The flags of a row, computed from all its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from satbench.board.doubts import doubts_of
from satbench.board.marks import Checked
from satbench.records.flags import Flag
from satbench.records.record import Diagnosis, Record, StageResult

PGD, FAST, SQUARE = "pgd(steps=50)", "fast(version=2)", "square(queries=9)"
AUTOATTACK, AUDIT = "autoattack(version=standard)", "audit(sample=2,weakest=1)"

Stage = tuple[str, str]
WHITE, FREE, LENT = (5, 5, 0, 0), (5, 0, 0, 0), (5, 0, 3, 3)


@pytest.fixture
def ran(make_record):
    """Return a function that makes a record of 100 images from stages and how many each broke."""

    def make(
        stages: Sequence[tuple[str, tuple[int, int, int, int], int]],
        flags: Sequence[Flag] = (),
        wrong: int = 10,
        first: int = 0,
    ) -> Record:
        """Break images in order, from image `first` of those right when clean."""
        verdicts = np.full(100, -1)
        verdicts[:wrong] = 0
        start = wrong + first
        for number, (_, _, broken) in enumerate(stages, 1):
            verdicts[start : start + broken] = number
            start += broken
        made = make_record([-1])
        return replace(
            made,
            suite=list(dict.fromkeys(spec for spec, _, _ in stages)),
            stages=[
                StageResult(spec, _part(spec, number), 90, broken, *passes)
                for number, (spec, passes, broken) in enumerate(stages)
            ],
            verdicts=verdicts.tolist(),
            diagnosis=Diagnosis(list(flags), 0, 0),
        )

    return make


def _part(spec: str, number: int) -> str:
    return ("sample/a" if number % 2 else "weakest/a") if spec == AUDIT else ""


DOUBTED = Flag("suite-went-on", 40, 90, "parts ran that it keeps for doubt", "run strongest")


@pytest.mark.parametrize(
    ("also", "broken", "flagged"),
    [(PGD, 0, True), (AUTOATTACK, 0, False), ("strongest(version=1)", 0, False), (PGD, 80, False)],
)
def test_a_suite_that_went_on_is_a_doubt_until_a_stronger_one_ran_or_nothing_survives(
    also: str, broken: int, flagged: bool, ran
) -> None:
    went_on = ran([(FAST, WHITE, 10)], [DOUBTED])

    found = names(went_on, ran([(also, WHITE, broken)], first=10))

    assert flagged == ((DOUBTED.name, 40, 90) in found)


def names(*records: Record, checked: Checked | None = None) -> list[tuple[str, int, int]]:
    robust = np.logical_and.reduce([np.asarray(record.verdicts) == -1 for record in records])
    found = doubts_of(records, robust, checked)
    return [(flag.name, flag.images, flag.of) for flag in found or ()]


# Half the width of Wilson's interval of 60 of 100 is 9.4 images, of 40 of 100 too.


@pytest.mark.parametrize(
    ("broken", "found"), [(9, []), (10, [("gradient-free-beats-gradients", 10, 90)])]
)
def test_random_search_must_break_more_than_the_interval(ran, broken, found) -> None:
    assert found == names(ran([(FAST, WHITE, 30 - broken), (FAST, FREE, broken)]))


def test_images_made_on_other_models_count_in_the_same_way(ran) -> None:
    record = ran([(FAST, WHITE, 10), (FAST, LENT, 20)])

    assert [("transfer-beats-white-box", 20, 90)] == names(record)


def test_what_gradients_broke_in_another_record_is_settled(ran) -> None:
    one = ran([(FAST, WHITE, 0), (FAST, FREE, 30)])

    assert len(names(one)) == 1
    assert names(one, ran([(PGD, WHITE, 25)])) == []


def test_random_search_without_gradient_attacks_raises_no_flag(ran) -> None:
    assert [("no-strong-attack", 60, 100)] == names(ran([(SQUARE, FREE, 30)]))


def test_a_number_of_zero_cannot_be_too_high(ran) -> None:
    sign = Flag("zero-gradient", 90, 90, "c", "r")

    assert names(ran([(PGD, WHITE, 10), (SQUARE, FREE, 80)], [sign])) == []


# 30 survivors of 90 that were right; half the interval of 30 of 100 is 8.9 images.
@pytest.mark.parametrize(("images", "raised"), [(60, False), (68, False), (69, True), (90, True)])
def test_a_sign_must_hold_for_survivors(ran, images: int, raised: bool) -> None:
    sign = Flag("zero-gradient", images, 90, "c", "r")

    assert raised == bool(names(ran([(FAST, WHITE, 60)], [sign])))


def test_a_sign_seen_on_a_part_of_the_images_is_taken_for_all(ran) -> None:
    sign = Flag("zero-gradient", 9, 9, "c", "r")

    assert [("zero-gradient", 9, 9)] == names(ran([(FAST, WHITE, 60)], [sign]))


@pytest.mark.parametrize("name", ["clean-at-chance", "training-data", "assumed-normalisation"])
def test_flags_of_a_whole_record_are_kept(ran, name: str) -> None:
    assert [(name, 1, 100)] == names(ran([(FAST, WHITE, 90)], [Flag(name, 1, 100, "c", "r")]))


def test_signs_on_how_to_attack_a_model_raise_no_flag(ran) -> None:
    assert names(ran([(FAST, WHITE, 30)], [Flag("few-classes", 90, 90, "c", "r")])) == []


def test_a_diagnosis_in_one_record_is_enough(ran) -> None:
    bare = ran([(FAST, WHITE, 30)], [Flag("not-diagnosed", 100, 100, "c", "r")])

    assert [("not-diagnosed", 100, 100)] == names(bare)
    assert names(bare, ran([(FAST, WHITE, 30)])) == []


def test_an_audit_that_broke_survivors_is_a_doubt_until_autoattack_ran(ran) -> None:
    whole = [(FAST, WHITE, 30), (AUDIT, WHITE, 1), (AUDIT, WHITE, 0)]

    assert ("audit-broke-survivors", 1, 180) in names(ran(whole))
    assert names(ran(whole), ran([(AUTOATTACK, WHITE, 31)])) == []
    assert names(ran([(FAST, WHITE, 30), (AUDIT, WHITE, 0), (AUDIT, WHITE, 0)])) == []


@pytest.mark.parametrize(("attack", "doubted"), [(PGD, True), (FAST, False), (AUTOATTACK, False)])
def test_a_number_by_pgd_alone_is_a_doubt(ran, attack: str, doubted: bool) -> None:
    assert [("no-strong-attack", 60, 100)] * doubted == names(ran([(attack, WHITE, 30)]))


# 60 survivors: 9.4 of them are 15.7 % of these, 7.8 of a sample of 50.
@pytest.mark.parametrize(("broken", "found"), [(7, []), (8, [("recheck-broke-survivors", 8, 50)])])
def test_a_recheck_must_outweigh_the_interval(ran, broken, found) -> None:
    checked = Checked(50, broken, 20, 0.2, (FAST,))

    assert found == names(ran([(FAST, WHITE, 30)]), checked=checked)
