from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satbench.board.rows import Share, Summary, make_groups, make_row
from satbench.records.flags import Flag
from satbench.records.record import Diagnosis

FEW = settings(max_examples=30, deadline=None)

PGD50 = "pgd(steps=50,step=eps/4,restarts=1,start=uniform,keep=any)"
PGD20 = PGD50.replace("50", "20")
AUTOATTACK = "autoattack(version=standard,block=100)"

FAST = "fast(version=1,source=none)"
TRANSFER = "transfer(source=a+b)"

VERDICTS = st.lists(st.integers(-1, 3), min_size=1, max_size=30)


@FEW
@given(VERDICTS)
def test_the_columns_of_one_record_are_its_own_counts(make_record, verdicts) -> None:
    record = make_record(verdicts)
    row = make_row([record])

    after = {attack: record.surviving(last) for attack, (*_, last) in record.attack_stages()}
    expected = [
        record.clean_correct,
        after.get(PGD50),
        after.get(AUTOATTACK),
        record.surviving(),
    ]
    shares = [row.clean, row.pgd50, row.autoattack, row.best_known]
    assert [Share(count, record.n) for count in expected] == shares


def test_the_gap_is_pgd_50_minus_best_known(make_record) -> None:
    strong = make_record([0, 1, 1, 2, 3, -1, -1, -1])
    fast = make_record([0, 1, 1, 1, 1, 1, -1, -1], ["fast(version=2,source=none)"])
    strongest = make_record([0, 1, 1, 1, 1, -1, 1, -1], ["strongest(version=2,source=none)"])
    square = make_record([0, 1, 1, 1, 1, -1, -1, 1], ["square(queries=100)"])

    gaps = [make_row([strong, *rest]).value("gap") for rest in ([], [fast], [fast, strongest])]

    assert gaps == [(5 - 3) / 8, (5 - 2) / 8, (5 - 1) / 8]
    assert make_row([strong, fast, strongest, square]).value("gap") == 5 / 8


def test_a_gap_of_zero_needs_a_suite_that_finds_what_pgd_misses(make_record) -> None:
    verdicts = [0, 1, 1, -1]
    pgd = make_record(verdicts, [PGD50])
    square = make_record(verdicts, ["square(queries=100)"])
    stronger = make_record([0, 1, 1, 1], ["square(queries=100)"])
    strongest = make_record(verdicts, ["strongest(version=2,source=none)"])

    rows = [make_row([pgd, *rest]) for rest in ([], [square], [square, strongest], [stronger])]

    assert [None, None, 0, 1 / 4] == [row.value("gap") for row in rows]


def test_fast_is_what_the_newest_version_left_and_best_known_counts_all(make_record) -> None:
    old = make_record([0, 1, -1, -1, -1], ["fast(version=2,source=none)"])
    new = make_record([0, -1, 1, 1, -1], ["fast(version=10,source=none)"])
    first, second = (make_row(records) for records in ([old, new], [old]))

    assert (Share(2, 5), Share(1, 5)) == (first.fast, first.best_known)
    assert Share(3, 5) == second.fast == second.best_known


def test_an_attack_that_no_record_ran_has_no_number(make_record) -> None:
    row = make_row([make_record([0, 1, -1], ["square(queries=100)"])])

    assert [row.value(column) for column in ("pgd50", "autoattack", "gap")] == [None] * 3


def test_pgd_of_other_steps_is_not_pgd_50(make_record) -> None:
    assert make_row([make_record([0, 1, -1], [PGD20])]).pgd50 is None


def test_pgd_50_behind_another_attack_has_no_number_of_its_own(make_record) -> None:
    row = make_row([make_record([1, 2, 3, -1], [AUTOATTACK, PGD50])])

    assert (None, Share(2, 4)) == (row.pgd50, row.autoattack)


def test_pgd_50_behind_another_pgd_counts_what_both_left(make_record) -> None:
    row = make_row([make_record([1, 2, 3, -1], [PGD20, PGD50, AUTOATTACK])])

    assert Share(2, 4) == row.pgd50


def test_best_known_counts_the_images_that_survived_in_every_record(make_record) -> None:
    first = make_record([0, 1, -1, -1, -1])
    second = make_record([0, -1, 1, -1, -1], ["square(queries=100)"])

    assert Share(2, 5) == make_row([first, second]).best_known


def test_an_attack_in_two_records_counts_the_images_that_survived_both(make_record) -> None:
    first, second = make_record([0, 1, -1, -1]), make_record([0, -1, 1, -1], seed=1)

    assert Share(1, 4) == make_row([first, second]).pgd50


def test_a_record_without_an_attack_does_not_change_the_column_of_that_attack(make_record) -> None:
    first = make_record([0, 1, -1, -1])
    second = make_record([0, -1, 1, 1], ["square(queries=100)"])

    assert Share(2, 4) == make_row([first, second]).pgd50


@FEW
@given(
    st.integers(1, 20).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(-1, 3), min_size=n, max_size=n), min_size=2, max_size=4
        )
    )
)
def test_adding_a_record_never_raises_a_column(make_record, runs) -> None:
    records = [make_record(verdicts, seed=seed) for seed, verdicts in enumerate(runs)]
    before, after = make_row(records[:-1]), make_row(records)

    columns = ("clean", "pgd50", "autoattack", "best_known")
    assert all(after.share(column).count <= before.share(column).count for column in columns)


def test_a_model_is_called_what_the_zoo_calls_it(make_record) -> None:
    by_file = make_record([1], name="a.pt", weights="w", source="file")
    by_zoo = make_record([1], name="zoo-name", weights="w", seed=1)

    assert make_row([by_file, by_zoo]).model.name == "zoo-name"


def test_the_cost_is_the_passes_of_every_record_per_image(make_record) -> None:
    # Each stage costs 15 passes an image that comes in: 2 + 1 images, then 2 + 1 + 0.
    records = [make_record([1, -1, 0], [PGD50, PGD20]), make_record([1, 2, 0], seed=1)]

    assert make_row(records).passes_per_image == 15 * (3 + 3) / 3


def test_the_cost_counts_the_passes_of_borrowed_models(make_record) -> None:
    record = make_record([-1, -1], [TRANSFER])
    stages = [replace(stage, source_forwards=7, source_backwards=4) for stage in record.stages]

    # Two parts, each 15 passes for each of 2 images, and 11 of its sources.
    assert make_row([replace(record, stages=stages)]).passes_per_image == (2 * 30 + 2 * 11) / 2


def test_autoattack_by_the_package_is_autoattack_too(make_record) -> None:
    spec = "autoattack-reference(version=standard,block=100)"

    assert Share(1, 3) == make_row([make_record([0, 1, -1], [spec])]).autoattack


def test_fast_counts_what_is_left_behind_it(make_record) -> None:
    rows = make_row([make_record([0, 1, 2, -1, -1], [FAST, "square(queries=1)"])])

    assert (Share(3, 5), Share(2, 5)) == (rows.fast, rows.best_known)


def test_transfer_counts_what_is_left_behind_the_last_of_its_sources(make_record) -> None:
    assert Share(1, 4) == make_row([make_record([0, 1, 2, -1], [TRANSFER])]).transfer


def test_transfer_behind_another_attack_has_no_number_of_its_own(make_record) -> None:
    assert make_row([make_record([0, 1, 2, -1], [PGD50, TRANSFER])]).transfer is None


def _diagnosed(record, *flags):
    return replace(record, diagnosis=Diagnosis(list(flags), 0, 0))


def test_a_row_has_the_flags_of_all_its_records_each_name_once(make_record) -> None:
    few, many = (Flag("b", images, 10, "c", "r") for images in (7, 9))
    other = Flag("a", 8, 10, "c", "r")
    right = [-1] * 100
    records = [
        _diagnosed(make_record(right), many),
        _diagnosed(make_record(right, seed=1), few, other),
        make_record(right, seed=2),
    ]

    assert (other, many) == make_row(records).flags


def test_a_row_without_a_diagnosis_has_unknown_flags(make_record) -> None:
    assert make_row([make_record([-1])]).flags is None


def test_a_row_whose_diagnosis_found_nothing_has_no_flags(make_record) -> None:
    assert () == make_row([_diagnosed(make_record([-1]))]).flags


def _row(make_record, survivors: int, seed: int | None = 0, **more):
    verdicts = [-1] * survivors + [3] * (10 - survivors)
    name = more.pop("name", f"s{seed}")
    return make_row([make_record(verdicts, name=name, train_seed=seed, **more)])


def test_a_group_is_summed_up_by_mean_and_standard_deviation_over_its_seeds(make_record) -> None:
    (group,) = make_groups([_row(make_record, survivors, survivors) for survivors in (2, 4, 6)])

    # By hand: squared distances 4 + 0 + 4 over n - 1 = 2 make a variance of 4 (in tenths).
    assert Summary(pytest.approx(0.4), pytest.approx(0.2), 3) == group.summary("best_known")


def test_the_seeds_of_a_group_ascend(make_record) -> None:
    (group,) = make_groups([_row(make_record, 5, seed) for seed in (10, 2, 0)])

    assert [row.training.seed for row in group.rows] == [0, 2, 10]


def test_a_single_seed_has_no_standard_deviation(make_record) -> None:
    (group,) = make_groups([_row(make_record, 4)])

    assert Summary(0.4, None, 1) == group.summary("best_known")


def test_models_of_another_recipe_or_activation_are_another_group(make_record) -> None:
    rows = [
        _row(make_record, 6, 0, name="a"),
        _row(make_record, 5, 1, name="b", activation="silu"),
        _row(make_record, 4, 2, name="c", recipe="standard"),
    ]

    assert [group.first.model.name for group in make_groups(rows)] == ["a", "b", "c"]


def test_models_of_unknown_training_are_never_taken_for_seeds_of_each_other(make_record) -> None:
    rows = [_row(make_record, 5, None, name=name, recipe=None) for name in "ab"]

    assert [len(group.rows) for group in make_groups(rows)] == [1, 1]


def test_a_seed_trained_twice_counts_once(make_record) -> None:
    rows = [_row(make_record, 2, 0, name="a"), _row(make_record, 4, 0, name="b")]
    (group,) = make_groups([*rows, _row(make_record, 9, 1)])

    assert {0: pytest.approx(0.3), 1: 0.9} == group.by_seed("best_known")


def test_a_summary_says_over_how_many_seeds_it_was_measured(make_record) -> None:
    rows = [_row(make_record, 2, 0), _row(make_record, 4, 1)]
    (group,) = make_groups([*rows, make_row([make_record([-1] * 10, [PGD20], train_seed=2)])])

    assert (group.summary("autoattack").seeds, group.seeds) == (2, 3)


@pytest.mark.parametrize(
    ("recipe", "expected"), [("standard", True), ("sat", False), (None, False)]
)
def test_a_control_is_a_model_known_to_be_trained_without_an_adversary(
    make_record, recipe, expected
) -> None:
    assert expected == _row(make_record, 5, recipe=recipe).training.is_control
