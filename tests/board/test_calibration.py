"""FLAGS.md: how often a flag is right, from records."""

from __future__ import annotations

import numpy as np
import pytest

from satbench.board.calibration import FlagTrial, render_flags, trials_of
from satbench.board.definition import board_definition
from satbench.records.attack_run import version_of

PGD50 = "pgd(steps=50,step=eps/4,restarts=1,start=uniform,keep=any)"
AUTOATTACK, FAST = "autoattack(version=standard,block=100)", "fast(version=1,source=none)"


@pytest.fixture
def verdicts():
    """Return a function that makes verdicts of 100 images: how many each stage broke."""

    def make(*broken: int) -> list[int]:
        made = [number for number, count in enumerate(broken, 1) for _ in range(count)]
        return made + [-1] * (100 - len(made))

    return make


def test_a_number_is_held_against_autoattack_in_another_record(make_record, verdicts) -> None:
    records = [
        make_record(verdicts(20), [FAST], name="m"),
        make_record(verdicts(0, 35), [AUTOATTACK], name="m"),
    ]
    (trial,) = trials_of(records)

    assert (trial.evaluation, trial.left, trial.broken) == ("fast", 80, 15)
    assert not trial.agrees


def test_of_two_versions_of_fast_the_newer_one_is_tried(make_record, verdicts) -> None:
    old = make_record(verdicts(20), [FAST], name="m")
    new = make_record(verdicts(30), [FAST.replace("=1", "=10")], name="m")
    full = make_record(verdicts(0, 35), [AUTOATTACK], name="m")

    assert [70, 70] == [trials_of([*some, full])[0].left for some in ([old, new], [new, old])]


def test_a_number_is_held_against_autoattack_behind_it(make_record, verdicts) -> None:
    (trial,) = trials_of([make_record(verdicts(20, 3, 2), [PGD50, AUTOATTACK])])

    assert trial == FlagTrial("m", "PGD-50", 100, 80, 5, ("no-strong-attack",))
    assert trial.agrees


def test_a_model_without_autoattack_is_not_tried(make_record, verdicts) -> None:
    assert trials_of([make_record(verdicts(20), [FAST])]) == []


def test_what_ran_behind_autoattack_is_not_tried(make_record, verdicts) -> None:
    assert trials_of([make_record(verdicts(20, 3, 2), [AUTOATTACK, PGD50])]) == []


def test_shares_are_counted_by_what_autoattack_says() -> None:
    trials = [
        FlagTrial("a", "fast", 100, 60, 0, ()),
        FlagTrial("b", "fast", 100, 60, 9, ("zero-gradient",)),
        FlagTrial("c", "fast", 100, 60, 10, ("zero-gradient",)),
        FlagTrial("d", "fast", 100, 60, 50, ()),
    ]
    page = render_flags([], trials, [])
    cells = [line.split("|")[1:-1] for line in page.splitlines() if line[:1] == "|"]
    lines = [[one.strip() for one in line] for line in cells]

    rates = next(line for line in lines if line[:2] == ["shipped", "fast"])
    assert rates[2:] == ["2", "1 of 2 [9.5, 90.5]", "2", "1 of 2 [9.5, 90.5]"]
    # Both flagged models, and the one that should have been.
    assert [line[0] for line in lines if line[-2] in ("agrees", "breaks more")] == [
        "`b`",
        "`c`",
        "`d`",
    ]


def test_the_shipped_numbers_of_fast_are_those_of_the_records() -> None:
    records = board_definition("fashion-mnist-linf-0.1").read_records()
    named = [one for one in records if one.model.name == NAME]
    newest_last = sorted(named, key=lambda one: version_of(one.suite[-1]))
    mine = {one.suite[-1].partition("(")[0]: one for one in newest_last}
    trial = next(one for one in trials_of(mine.values()) if one.evaluation == "fast")
    fast, strong = np.asarray(mine["fast"].verdicts), np.asarray(mine["autoattack"].verdicts)

    assert trial.broken == ((fast == -1) & (strong != -1)).sum()


NAME = "fmnist-sat-tiny-silu-s0"
