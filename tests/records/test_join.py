"""A challenge or a merge can only take images away from the survivors, each with its witness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satbench.board.rows import make_row
from satbench.core.errors import SatbenchError
from satbench.records.check import check_record
from satbench.records.join import Proven, add_challenge, merge_records
from satbench.records.record import SURVIVED, WRONG_CLEAN, Record, inputs_of, parse_record
from satbench.records.witnesses import Witnesses

FEW = settings(max_examples=40, deadline=None)
SQUARE, FAB, PGD = "square(queries=9)", "fab-t(steps=9)", "pgd(steps=9)"

VERDICTS = st.lists(st.integers(-1, 2), min_size=1, max_size=12)
TWO_ATTACKS = (SQUARE, FAB)


def proven(record: Record, value: float = 0.0) -> Proven:
    """Give a synthetic record witnesses: images of one pixel, of the value `value`."""
    indices = np.flatnonzero(np.array(record.verdicts) > WRONG_CLEAN)
    images = np.full((len(indices), 1, 1, 1), value, np.float32)
    witnesses = Witnesses(indices, images)
    return replace(record, witnesses_digest=witnesses.digest), witnesses


def fallen(record: Record) -> set[int]:
    return {index for index, verdict in enumerate(record.verdicts) if verdict > WRONG_CLEAN}


def with_clean_of(first: Sequence[int], other: Sequence[int]) -> list[int]:
    """Make two lists of verdicts those of one model: the same images are wrong when clean."""
    padded = [*other, *[SURVIVED] * len(first)][: len(first)]
    return [
        0 if mine == 0 else theirs or SURVIVED for mine, theirs in zip(first, padded, strict=True)
    ]


def on_survivors(record: Record, verdicts: Sequence[int]) -> list[int]:
    """Make verdicts those of a run on a record's survivors."""
    padded = [*verdicts, *[SURVIVED] * record.n][: record.n]
    return [
        new or SURVIVED if old == SURVIVED else 0
        for old, new in zip(record.verdicts, padded, strict=True)
    ]


# A challenge


@FEW
@given(VERDICTS, VERDICTS)
def test_a_challenge_removes_exactly_what_it_broke(make_record, told, new) -> None:
    parent = proven(make_record(told, TWO_ATTACKS))
    run = proven(make_record(on_survivors(parent[0], new), [PGD, "x"], seed=3))
    record, witnesses = add_challenge(parent, run, "someone")

    assert fallen(record) == fallen(parent[0]) | fallen(run[0])
    assert record.surviving() <= parent[0].surviving()
    assert record.clean_correct == parent[0].clean_correct
    assert [v for v in record.verdicts if 0 < v <= 2] == [v for v in told if v > 0]
    assert witnesses.indices.tolist() == sorted(fallen(record))
    assert check_record(record) == []
    assert parse_record(record.to_json(), "here") == record


def test_a_challenge_names_who_ran_what_with_which_seed(make_record) -> None:
    parent = proven(make_record([1, -1, -1], [SQUARE], seed=4))
    record, _ = add_challenge(parent, proven(make_record([0, 1, -1], [FAB], seed=7)), "someone")

    assert [(s.attack, s.origin, s.by, s.seed) for s in record.stages] == [
        (SQUARE, parent[0].identity, "", 4),
        (FAB, "", "someone", None),
    ]
    assert (record.seed, record.suite, record.verdicts) == (7, [SQUARE, FAB], [1, 2, -1])


def test_a_challenge_keeps_the_witnesses_of_the_record(make_record) -> None:
    parent = proven(make_record([-1, 1], [SQUARE]), 0.25)
    _, witnesses = add_challenge(parent, proven(make_record([1, 0], [FAB]), 0.75))

    assert witnesses.images.ravel().tolist() == [0.75, 0.25]


def test_the_identity_of_a_challenge_holds_its_seed_its_author_and_its_parent(make_record) -> None:
    parent = make_record([-1], [SQUARE])
    other = make_record([-1], [SQUARE], seed=1)

    def identity(parent: Record, seed: int, by: str) -> str:
        run = proven(make_record([-1], [FAB], seed=seed))
        return add_challenge(proven(parent), run, by)[0].identity

    seen = [(parent, 0, ""), (parent, 1, ""), (parent, 0, "someone"), (other, 0, "")]
    assert len({identity(*one) for one in seen} | {make_record([-1], [SQUARE, FAB]).identity}) == 5


def test_the_same_attack_with_the_same_seed_is_refused(make_record) -> None:
    parent = proven(make_record([-1], [SQUARE]))
    with pytest.raises(SatbenchError, match=r"with seed 0; give another --seed"):
        add_challenge(parent, proven(make_record([-1], [SQUARE])))


def test_the_same_attack_with_another_seed_is_another_challenge(make_record) -> None:
    parent = proven(make_record([1, -1], [SQUARE]))
    record, _ = add_challenge(parent, proven(make_record([0, 1], [SQUARE], seed=1)))

    assert record.attack_stages() == [(SQUARE, [1]), (SQUARE, [2])]
    assert check_record(record) == []


def test_the_attack_of_an_older_protocol_is_another_attack(make_record) -> None:
    parent = replace(make_record([-1], [SQUARE]), protocol=1)

    assert add_challenge(proven(parent), proven(make_record([-1], [SQUARE])))[0].suite == [
        SQUARE,
        SQUARE,
    ]


def test_a_challenge_of_a_challenge_keeps_where_each_stage_ran(make_record) -> None:
    first = proven(make_record([-1, -1], [SQUARE]))
    second = add_challenge(first, proven(make_record([1, -1], [FAB], seed=1)), "one")
    third, _ = add_challenge(second, proven(make_record([0, 1], [PGD], seed=2)), "two")

    assert [(s.origin, s.by, s.seed) for s in third.stages] == [
        (first[0].identity, "", 0),
        (second[0].identity, "one", 1),
        ("", "two", None),
    ]
    assert check_record(third) == []


def test_a_run_that_was_not_on_the_survivors_is_no_challenge(make_record) -> None:
    parent = proven(make_record([1, -1], [SQUARE]))
    with pytest.raises(SatbenchError, match="exactly the images that survived"):
        add_challenge(parent, proven(make_record([1, -1], [FAB])))


# A merge


@FEW
@given(VERDICTS, VERDICTS)
def test_a_merge_breaks_what_either_record_broke(make_record, told, other) -> None:
    mine = proven(make_record(told, TWO_ATTACKS))
    theirs = proven(make_record(with_clean_of(told, other), [PGD, "x"]))
    record, witnesses = merge_records([mine, theirs])
    reversed_record, _ = merge_records([theirs, mine])
    again, _ = merge_records([(record, witnesses), theirs])

    assert fallen(record) == fallen(mine[0]) | fallen(theirs[0])
    assert record.surviving() <= min(mine[0].surviving(), theirs[0].surviving())
    assert fallen(reversed_record) == fallen(record) == fallen(again)
    assert again.stages == record.stages
    assert witnesses.indices.tolist() == sorted(fallen(record))
    assert [check_record(one) for one in (record, reversed_record, again)] == [[], [], []]
    assert parse_record(record.to_json(), "here") == record


@FEW
@given(VERDICTS)
def test_a_record_merged_with_itself_does_not_change(make_record, told) -> None:
    mine = proven(make_record(told, TWO_ATTACKS))
    record, witnesses = merge_records([mine, mine])

    assert (record.verdicts, witnesses.digest) == (mine[0].verdicts, mine[1].digest)


@FEW
@given(VERDICTS, VERDICTS, VERDICTS)
def test_merging_is_associative_in_what_is_broken(make_record, a, b, c) -> None:
    parts = [
        proven(make_record(with_clean_of(a, verdicts), [attack, "x"]))
        for verdicts, attack in ((a, SQUARE), (b, FAB), (c, PGD))
    ]
    left = merge_records([merge_records(parts[:2]), parts[2]])[0]
    right = merge_records([parts[0], merge_records(parts[1:])])[0]

    assert fallen(left) == fallen(right) == fallen(merge_records(parts)[0])
    assert [check_record(one) for one in (left, right)] == [[], []]


@FEW
@given(VERDICTS, VERDICTS, VERDICTS)
def test_a_merged_record_can_be_challenged_and_merged_again(make_record, a, b, new) -> None:
    mine = proven(make_record(a, TWO_ATTACKS))
    theirs = proven(make_record(with_clean_of(a, b), [PGD, "x"]))
    merged = merge_records([mine, theirs])
    run = proven(make_record(on_survivors(merged[0], new), ["y", "z"], seed=1))
    challenged = add_challenge(merged, run)
    back, _ = merge_records([theirs, challenged])

    assert fallen(back) == fallen(challenged[0]) >= fallen(merged[0])
    assert [check_record(one) for one in (challenged[0], back)] == [[], []]


def test_the_first_record_that_broke_an_image_proves_it(make_record) -> None:
    mine = proven(make_record([1, -1, 1], [SQUARE]), 0.25)
    theirs = proven(make_record([1, 1, -1], [FAB]), 0.75)
    record, witnesses = merge_records([mine, theirs])

    assert record.verdicts == [1, 2, 1]
    assert witnesses.images.ravel().tolist() == [0.25, 0.75, 0.25]


def test_a_stage_that_ran_apart_keeps_the_numbers_of_its_own_run(make_record) -> None:
    mine = proven(make_record([1, -1, -1], [SQUARE]))
    theirs = proven(make_record([1, 1, -1], [FAB]))
    stage = merge_records([mine, theirs])[0].stages[1]

    assert (stage.apart, stage.attacked, stage.broken) == (True, 3, 2)


def test_a_stage_of_both_records_is_listed_once(make_record) -> None:
    parent = proven(make_record([1, -1, -1], [SQUARE]))
    one = add_challenge(parent, proven(make_record([0, 1, -1], [FAB], seed=1)))
    two = add_challenge(parent, proven(make_record([0, -1, 1], [PGD], seed=2)))
    record, _ = merge_records([one, two])

    assert (record.suite, record.verdicts) == ([SQUARE, FAB, PGD], [1, 2, 3])
    assert check_record(record) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"weights": "other"}, "other weights"),
        ({"activation": "silu"}, "other architecture"),
        ({"images": "other"}, "other images"),
        ({"eps": "0.2"}, "other threat model"),
    ],
)
def test_records_that_do_not_belong_together_are_refused(changed, said, make_record) -> None:
    given = [make_record([1, -1], [SQUARE]), make_record([1, -1], [FAB], **changed)]
    with pytest.raises(SatbenchError, match=f"got {said} in a record of m than in the first"):
        merge_records([proven(one) for one in given])


def test_records_that_disagree_about_clean_images_are_refused(make_record) -> None:
    given = [make_record([0, -1], [SQUARE]), make_record([-1, -1], [FAB])]
    with pytest.raises(SatbenchError, match="got other clean predictions"):
        merge_records([proven(one) for one in given])


def test_records_that_disagree_about_a_stage_of_both_are_refused(make_record) -> None:
    record = make_record([1, -1], [SQUARE])
    changed = replace(make_record([1, 1], [SQUARE]), identity=record.identity)
    with pytest.raises(SatbenchError, match="says of image 1 that a stage broke it"):
        merge_records([proven(record), proven(changed)])


def test_sources_of_one_name_and_other_weights_are_refused(make_record) -> None:
    given = [
        replace(make_record([-1], [attack]), sources={"s": digest})
        for attack, digest in ((SQUARE, "a" * 64), (FAB, "b" * 64))
    ]
    with pytest.raises(SatbenchError, match=r"expected one source called s, got a{12}… and b{12}…"):
        merge_records([proven(one) for one in given])


# What does not add up


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("broken", 0, "broke 0 images of 3, but 1 verdicts say so"),
        ("broken", 4, "broke 4 images of 3"),
        ("attacked", 4, "attacked 4 images, but 3 are right when clean"),
        ("origin", "", "ran in another record, but does not say in which"),
    ],
)
def test_the_sums_of_a_stage_that_ran_apart_are_checked(field, value, said, make_record) -> None:
    mine = proven(make_record([1, -1, -1], [SQUARE]))
    record, _ = merge_records([mine, proven(make_record([1, 1, -1], [FAB]))])
    stages = [record.stages[0], replace(record.stages[1], **{field: value})]

    assert any(said in fault for fault in check_record(replace(record, stages=stages)))


def test_the_stages_of_a_run_apart_must_follow_from_each_other(make_record) -> None:
    mine = proven(make_record([-1, -1, -1], [SQUARE]))
    record, _ = merge_records([mine, proven(make_record([1, 2, -1], [FAB, PGD]))])
    stages = [*record.stages[:2], replace(record.stages[2], attacked=1)]

    (fault,) = [f for f in check_record(replace(record, stages=stages)) if "attacked" in f]
    assert fault == f"{PGD} attacked 1 images, but 2 were left in its own run"


def test_negative_passes_are_named(make_record) -> None:
    record = make_record([-1], [SQUARE])
    spoilt = replace(record, stages=[replace(record.stages[0], backwards=-1)])

    assert check_record(spoilt) == [f"{SQUARE} has a negative number of passes"]


# On the board


def test_a_record_and_its_challenge_cost_each_stage_once(make_record) -> None:
    parent = make_record([1, -1, -1], [SQUARE])
    run = make_record([0, 1, -1], [FAB], seed=1)
    child, _ = add_challenge(proven(parent), proven(run))
    row = make_row([parent, child])

    spent = [stage.forwards + stage.backwards for stage in (*parent.stages, *run.stages)]
    assert row.passes_per_image == sum(spent) / 3
    assert (row.best_known.count, len(row.records)) == (1, 2)


def test_records_of_one_evaluation_have_no_history(make_record) -> None:
    assert inputs_of(make_record([1, 2, 3, -1])).history == []
