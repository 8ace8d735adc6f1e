from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from satbench.board.cost import Cost, ModelCost, cost_of, render_costs
from satbench.records.attack_run import attack_runs

PGD50 = "pgd(steps=50,step=eps/4,restarts=1,start=uniform,keep=any)"
AUTOATTACK = "autoattack(version=standard,block=100)"
REFERENCE = "autoattack-reference(version=standard,block=100)"
FAST = "fast(version=1,source=none)"
SQUARE = "square(queries=1)"


@pytest.fixture
def run(make_record):
    """A function that makes a record of one right image in ten wrong, with passes of each stage."""

    def make(suite, left, passes=10, n=1000, **more):
        verdicts = [0] * (n // 10) + [1] * (n - n // 10 - left) + [-1] * left
        record = make_record(verdicts, suite, **more)
        stages = [replace(stage, forwards=passes, backwards=0) for stage in record.stages]
        return replace(record, stages=stages)

    return make


def _cost(*records):
    return cost_of(attack_runs(records))


def _page(costs, activation="relu"):
    return render_costs([("t", [ModelCost(name, activation, one) for name, one in costs])])


def test_passes_are_for_each_image_that_was_right_when_clean(make_record) -> None:
    record = make_record([0, 1, -1, -1], [FAST])
    stage = replace(
        record.stages[0], forwards=5, backwards=4, source_forwards=2, source_backwards=1
    )

    assert Fraction(12, 3) == _cost(replace(record, stages=[stage])).fast.passes


def test_the_passes_of_autoattack_are_those_of_all_its_parts_and_not_of_pgd(run) -> None:
    cost = _cost(run([PGD50, AUTOATTACK], 500, passes=90))

    assert Fraction(2 * 90, 900) == cost.autoattack.passes


@pytest.mark.parametrize(("left", "expected"), [(499, True), (501, True), (502, False)])
def test_fast_is_as_strong_up_to_a_tenth_of_a_point(run, left, expected) -> None:
    assert expected is _cost(run([AUTOATTACK], 500), run([FAST], left)).is_as_strong


@pytest.mark.parametrize(("missed", "expected"), [(2, True), (3, False)])
def test_fast_is_complete_if_it_missed_at_most_one_image_in_500(
    make_record, missed, expected
) -> None:
    autoattack = make_record([1] * missed + [-1] * (1000 - missed), [AUTOATTACK])
    fast = make_record([-1] * missed + [1] * (1000 - missed), [FAST])  # broke far more in all

    assert expected is _cost(autoattack, fast).is_complete
    assert _cost(autoattack).is_complete is None


def test_of_fast_the_newest_version_counts(run) -> None:
    versions = [FAST.replace("=1", f"={number}") for number in (9, 10, 2)]
    records = [run([spec], 100 + k, seed=k) for k, spec in enumerate(versions)]

    assert versions[1] == _cost(*records).fast.attack
    assert 101 == _cost(*records).fast.left


@pytest.mark.parametrize(("passes", "expected"), [(125, True), (124, False)])
def test_fast_is_cheap_from_a_ratio_of_25_on(run, passes, expected) -> None:
    # AutoAttack has two parts here.
    cost = _cost(run([AUTOATTACK], 500, passes), run([FAST], 500, 10))

    assert expected is cost.is_cheap


def test_fast_behind_another_attack_is_not_compared(run) -> None:
    assert _cost(run([PGD50, FAST], 500)).fast is None


def test_autoattack_behind_anything_but_pgd_is_not_compared(run) -> None:
    assert _cost(run([SQUARE, AUTOATTACK], 500)).autoattack is None


def test_autoattack_alone_is_preferred_to_autoattack_behind_pgd(run) -> None:
    records = [run([PGD50, AUTOATTACK], 500), run([AUTOATTACK], 510, seed=3)]

    assert 510 == _cost(*records).autoattack.left


def test_autoattack_that_attacked_no_image_has_no_ratio(run) -> None:
    cost = _cost(run([PGD50, AUTOATTACK], 0), run([FAST], 0))

    assert (None, None) == (cost.ratio, cost.is_cheap)


@pytest.mark.parametrize(("spec", "protocol"), [(AUTOATTACK, 1), (REFERENCE, 2)])
def test_autoattack_of_protocol_1_and_autoattack_reference_are_the_package(
    run, spec, protocol
) -> None:
    cost = _cost(replace(run([spec], 500), protocol=protocol))

    assert (True, True) == (cost.autoattack is None, cost.reference is not None)


def test_stages_of_another_run_in_a_merged_record_are_not_compared(run) -> None:
    record = run([AUTOATTACK], 500)
    stages = [replace(stage, apart=True, origin="other") for stage in record.stages]

    assert _cost(replace(record, stages=stages)).autoattack is None


def test_the_page_counts_on_how_many_models_each_holds_and_names_the_others(run) -> None:
    good = _cost(run([AUTOATTACK], 500, 125), run([FAST], 500))
    dear = _cost(run([AUTOATTACK], 500, 124), run([FAST], 509))
    page = _page([("good", good), ("dear", dear), ("none", _cost())])

    goals = [line for line in page.splitlines() if "models measured" in line]
    assert 3 == len(goals)
    for line in goals:
        assert "reached on 1 of 2 models measured, not on dear; 1 not measured." in line


def test_a_line_has_accuracies_passes_and_both_ratios(run) -> None:
    cost = _cost(
        run([PGD50, AUTOATTACK], 500, 4500),
        run([FAST], 509, 900),
        run([REFERENCE], 500, 9000),
    )

    # 900 images were right: 2 parts of 4500 passes are 10 each, 9000 twice are 20.
    expected = (
        "| m | 50.0 | 50.9 | +0.9, **does not hold** | 10.0 † | 1.0 | "
        "10.0, **does not hold** | 9 | 0 | 20.0 | 20.0 | 0.0 † | 0.0 | – |"
    )
    assert expected in _page([("m", cost)])


def test_a_ratio_just_below_25_does_not_read_as_25(run) -> None:
    cost = _cost(run([AUTOATTACK], 500, 12499), run([FAST], 500, 1000))

    assert "| 24.9, **does not hold** |" in _page([("m", cost)])


def _timed(record, *seconds, threads=1):
    spent = replace(record.environment, stage_seconds=[*seconds], threads=threads)
    return replace(record, environment=spent)


def test_time_is_wall_time_for_each_image_that_was_right_when_clean(run) -> None:
    cost = _cost(
        _timed(run([PGD50, AUTOATTACK], 500), 99.0, 9.0, 18.0), _timed(run([FAST], 5), 9.0)
    )

    assert (30.0, 10.0, 3.0) == (
        cost.autoattack.milliseconds,
        cost.fast.milliseconds,
        cost.time_ratio,
    )


def test_times_on_other_threads_or_from_another_record_are_not_compared(run) -> None:
    record = _timed(run([FAST], 500), 9.0)
    brought = replace(record, stages=[replace(one, origin="other") for one in record.stages])
    slow = _timed(run([AUTOATTACK], 500), 9.0, 9.0)

    assert _cost(slow, record).time_ratio == 2
    assert _cost(_timed(slow, 9.0, 9.0, threads=2), record).time_ratio is None
    assert _cost(slow, brought).time_ratio is None


def test_the_page_has_the_median_of_the_ratios_of_passes_and_of_times(run) -> None:
    costs = [
        _cost(
            _timed(run([AUTOATTACK], 500, 10 * k), 5.0 * k, 0.0), _timed(run([FAST], 500, 1), 1.0)
        )
        for k in (1, 2, 6)
    ]
    page = _page([(str(k), cost) for k, cost in enumerate(costs)] + [("n", _cost())])

    assert "Median over the 3 models with both: 40.0 times fewer passes, 10.0 times less" in page


def _broken(record, broken):
    """Give a record of one stage these broken images; all others survive."""
    verdicts = [1 if place in broken else -1 for place in range(record.n)]
    return replace(record, verdicts=verdicts)


def test_misses_are_counted_image_by_image_both_ways(make_record) -> None:
    clean = [-1] * 10
    autoattack = _broken(make_record(clean, [SQUARE]), {1, 2, 3})
    fast = _broken(make_record(clean, [FAST]), {3, 4})
    (ours,), (other,) = attack_runs([autoattack]), attack_runs([fast])

    cost = Cost(autoattack=ours, fast=other, reference=None)

    assert (2, 1) == cost.missed
    assert Fraction(1, 10) == cost.difference


def test_the_page_groups_models_by_activation(run) -> None:
    def cost(left, fast):
        return _cost(run([AUTOATTACK], left, 60), run([FAST], fast, 10))

    models = [
        ModelCost("a", "elu", cost(500, 508)),
        ModelCost("b", "elu", cost(500, 500)),
        ModelCost("c", "celu(alpha=2)", cost(400, 396)),
        ModelCost("d", "silu", _cost(run([FAST], 500))),
    ]
    lines = render_costs([("t", models)]).splitlines()

    assert "| celu(alpha=2) | 1 | 40.0 | 39.6 | −0.4 | −0.4 | 1 of 1 | 0 | 0 | 4 | 12.0 |" in lines
    assert "| elu | 2 | 50.0 | 50.4 | +0.4 | +0.8 | 1 of 2 | 8 | 8 | 0 | 12.0 |" in lines
    assert "| **all** | 3 | 46.7 | 46.8 | +0.1 | +0.8 | 2 of 3 | 8 | 8 | 4 | 12.0 |" in lines
    assert not any(line.startswith("| silu |") for line in lines)
