from __future__ import annotations

import json
from typing import get_args

from satbench.board.board import build_board
from satbench.board.exports import render_csv, render_json
from satbench.board.marks import PROMISES, Mark
from satbench.board.rows import make_row


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
