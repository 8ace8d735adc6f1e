from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satbench.board.board import build_board
from satbench.core.errors import SatbenchError

FEW = settings(max_examples=10, deadline=None)


@FEW
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_records_does_not_matter(small_records, small_board, random) -> None:
    shuffled = random.sample(small_records, len(small_records))

    assert small_board == build_board(shuffled)


def test_images_under_two_names_are_one_benchmark_called_by_the_first_name(make_record) -> None:
    records = [make_record([1, -1], name=name, dataset=name) for name in ("b", "a")]

    assert [benchmark.dataset.name for benchmark in build_board(records).benchmarks] == ["a"]


def test_no_records_are_refused_with_the_command_that_makes_one() -> None:
    with pytest.raises(SatbenchError, match="got none; make one with satbench eval --model NAME"):
        build_board([])


def test_two_records_of_the_same_run_are_refused(make_record) -> None:
    record = make_record([1, -1], name="first", weights="w")
    double = make_record([1, -1], name="second", weights="w")

    with pytest.raises(SatbenchError, match=f"{record.identity} .first and second.; remove one"):
        build_board([record, double])


def test_records_of_the_same_weights_on_the_same_images_are_one_model(make_record) -> None:
    records = [make_record([1, -1]), make_record([-1, -1], seed=1)]
    (benchmark,) = build_board(records).benchmarks

    assert [len(row.records) for row in benchmark.rows] == [2]


def test_the_same_weights_under_another_activation_are_another_model(make_record) -> None:
    records = [make_record([1, -1], weights="w", activation=name) for name in ("relu", "silu")]
    (benchmark,) = build_board(records).benchmarks

    assert [len(row.records) for row in benchmark.rows] == [1, 1]


def test_a_record_at_another_radius_does_not_touch_best_known(make_record) -> None:
    records = [make_record([1, -1, -1]), make_record([1, 1, 1], eps="0.2")]
    near, far = build_board(records).benchmarks

    assert (near.rows[0].best_known.count, far.rows[0].best_known.count) == (2, 0)


def test_the_same_radius_in_other_words_is_the_same_benchmark(make_record) -> None:
    records = [make_record([1, -1], eps="0.1"), make_record([1, -1], eps="1/10", name="other")]

    assert len(build_board(records).benchmarks) == 1


def test_benchmarks_are_ordered_by_data_set_then_radius(make_record) -> None:
    records = [
        make_record([1], dataset="b", images="b"),
        make_record([1], eps="0.1"),
        make_record([1], eps="8/255"),
    ]

    expected = ["b, Linf, eps 0.1", "shapes, Linf, eps 8/255", "shapes, Linf, eps 0.1"]
    assert expected == [benchmark.title for benchmark in build_board(records).benchmarks]


def test_records_that_disagree_on_the_number_of_images_are_refused(make_record) -> None:
    records = [make_record([1, -1]), make_record([1, -1, -1], name="other")]

    with pytest.raises(SatbenchError, match="both 2 and 3 images"):
        build_board(records)


def test_a_record_with_a_fault_is_refused_by_name(make_record) -> None:
    record = make_record([1, 3, -1], name="liar")

    message = r"the record of liar \(\w{12}\) cannot be counted: .* but 0 verdicts say so"
    with pytest.raises(SatbenchError, match=message):
        build_board([replace(record, verdicts=[1, -1, -1])])


def test_a_record_of_no_images_is_refused(make_record) -> None:
    with pytest.raises(SatbenchError, match="cannot be counted: there are no images"):
        build_board([make_record([])])


def test_a_malformed_radius_is_refused(make_record) -> None:
    with pytest.raises(SatbenchError, match="expected eps such as 8/255"):
        build_board([make_record([1], eps="eight")])
