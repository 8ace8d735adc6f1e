from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from typing import Any, get_args

import pytest
from rich.console import Console

from satbench.board.board import build_board
from satbench.board.exports import benchmark_objects, render_csv, render_json
from satbench.board.marks import PROMISES, Mark
from satbench.board.published import numbers_of
from satbench.board.rows import Row, make_row
from satbench.board.tables import render_markdown
from satbench.board.terminal import leaderboard_table
from satbench.core.errors import SatbenchError
from satbench.core.stats.intervals import unseen_bound
from satbench.records.rechecks import RecheckRecord, drawn_survivors, record_digest
from satbench.records.record import Record


def test_a_row_of_records_is_unverified_unless_something_says_otherwise(make_record) -> None:
    assert make_row([make_record([0, 1, -1])]).mark == "unverified"


def test_each_mark_has_a_promise() -> None:
    assert set(get_args(Mark)) == set(PROMISES)


def test_the_mark_of_a_row_is_exported(make_record) -> None:
    board = build_board([make_record([0, 1, -1])])
    (model,) = json.loads(render_json(board))["benchmarks"][0]["models"]
    head, line = render_csv(board).splitlines()

    assert model["mark"] == "unverified"
    assert line.split(",")[head.split(",").index("mark")] == "unverified"


def recheck_of(record: Record, images: int = 50, broken: int = 0, **changed: Any) -> RecheckRecord:
    sampled = drawn_survivors(record, images, 5).tolist()
    made = RecheckRecord(
        record=record.identity,
        record_digest=record_digest(record),
        model=record.model.name,
        n=record.n,
        survivors=record.surviving(),
        sampled=sampled,
        broken=sampled[:broken],
        attacks=["fast(version=2,source=none)"],
        seed=5,
        breakable=unseen_bound(broken, len(sampled), record.surviving()),
        by="",
        finished="2026-11-29T00:00:00+00:00",
        satbench="0.1",
        protocol=2,
    )
    return replace(made, **changed)


@pytest.fixture
def record(make_record) -> Record:
    made: Record = make_record([0] * 20 + [1] * 20 + [-1] * 160)
    return made


def marked(records: Sequence[Record], *rechecks: RecheckRecord) -> Row:
    (row,) = build_board(records, rechecks=rechecks).benchmarks[0].rows
    return row


def test_a_sample_without_a_break_earns_the_mark_with_its_bound(record: Record) -> None:
    row = marked([record], recheck_of(record))

    assert row.mark == "verified"
    assert row.checked is not None
    # The hypergeometric bound of 0 among 50 of 160, as a share of all 200 images.
    assert row.checked.breakable == unseen_bound(0, 50, 160) == 7
    assert row.checked.too_high == 7 / 200


@pytest.mark.parametrize(
    ("images", "broken", "attack"),
    [(49, 0, "fast(version=2)"), (50, 4, "fast(version=2)"), (50, 0, "pgd(steps=1)")],
    ids=["too few images", "too many fell", "too weak an attack"],
)
def test_a_recheck_that_shows_too_little_earns_no_mark(
    record: Record, images: int, broken: int, attack: str
) -> None:
    assert marked([record], recheck_of(record, images, broken, attacks=[attack])).mark == (
        "unverified"
    )


def test_the_largest_sample_counts_whatever_it_broke(record: Record) -> None:
    luckier, larger = recheck_of(record, 50), recheck_of(record, 100, 40)

    assert marked([record], luckier, larger).mark == "unverified"


def test_breaks_that_were_proven_later_do_not_improve_the_sample(
    record: Record, make_record
) -> None:
    recheck = recheck_of(record, 50, 5)
    verdicts = list(record.verdicts)
    for image in recheck.broken:
        verdicts[image] = 1
    stronger = make_record(verdicts, seed=1)
    row = marked([record, stronger], recheck)

    assert row.checked is not None
    assert row.checked.breakable == unseen_bound(5, 50, 160) - 5
    # Had the five been left out of sample and survivors, the bound would be far lower.
    assert unseen_bound(0, 45, 155) < row.checked.breakable


def test_a_row_without_survivors_needs_no_recheck(make_record) -> None:
    assert marked([make_record([0, 1, 2])]).mark == "verified"


def test_a_recheck_of_no_record_or_with_another_bound_is_left_out_and_named(
    record: Record, make_record
) -> None:
    other = recheck_of(make_record([-1] * 200, name="gone", weights="gone"))
    wrong = recheck_of(record, breakable=0)
    left_out: list[str] = []
    board = build_board([record], left_out=left_out, rechecks=[other, wrong])

    assert board.benchmarks[0].rows[0].mark == "unverified"
    assert len(left_out) == 2
    with pytest.raises(SatbenchError, match="does not count"):
        build_board([record], rechecks=[wrong])


def test_tables_show_marks_and_count_them(record: Record, make_record) -> None:
    other = make_record([-1] * 200, name="other", weights="other")
    board = build_board([record, other], rechecks=[recheck_of(record)])
    page = render_markdown(board)
    shown = Console(width=120, file=StringIO())
    shown.print(leaderboard_table(numbers_of(benchmark_objects(board))))
    text = shown.file.getvalue()  # type: ignore[attr-defined]

    assert "| verified (≤ 3.5) |" in page
    assert "| unverified |" in page
    assert "Verified: 1 of 2 models" in page
    assert text.count("✓") == 2  # the row, and what the sign means
    assert all(mark in page for mark in PROMISES)
