"""Boards as data: what a `board.toml` may say, and which records belong on a board."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from satbench.board.board import defined_board
from satbench.board.definition import board_definition, board_definitions, read_definition
from satbench.board.tables import render_markdown
from satbench.core.errors import SatbenchError
from satbench.records.record import write_record

TEXT = """
schema = 1
summary = "shapes"
dataset = "shapes"
split = "test"
n = 4
threat = "linf:8/255"
suites = [["pgd-50"], ["fast"]]
columns = ["clean", "best_known"]
"""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    (tmp_path / "made" / "records").mkdir(parents=True)
    path = tmp_path / "made" / "board.toml"
    path.write_text(TEXT)
    return path


def test_a_definition_is_what_its_file_says(board: Path) -> None:
    made = read_definition(board)

    assert ("made", 4, "linf:8/255", (("pgd-50",), ("fast",))) == (
        made.name,
        made.n,
        str(made.threat),
        made.suites,
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("n = 4", 'n = "4"', r"n: expected int, got str"),
        ("n = 4", "n = 0", r"n: expected 1 or more, got 0"),
        ("schema = 1", "schema = 9", r"schema: expected 1, got 9"),
        ("n = 4", "", r"missing field n"),
        ("n = 4", "n = 4\nm = 5", r"field that is not known, m$"),
        ('"best_known"]', '"best"]', r"columns\[1\]: invalid enum value 'best'"),
        ('"best_known"]', '"clean"]', r"columns: expected some of .*, each once"),
        ('[["pgd-50"], ["fast"]]', "[]", r"suites: expected at least one list"),
        ("n = 4", "n = 4\non_request = [[]]", r"on_request: expected lists of attacks"),
        ("linf:8/255", "l3:1", r"expected NORM:EPS such as linf:8/255, got 'l3:1'"),
        ("n = 4", "n = ", r"is not TOML"),
    ],
)
def test_a_wrong_definition_is_refused_with_file_and_field(
    board: Path, old: str, new: str, said: str
) -> None:
    board.write_text(TEXT.replace(old, new))

    with pytest.raises(SatbenchError, match=said):
        read_definition(board)


def test_a_board_shows_the_columns_of_its_definition(board: Path, make_record) -> None:
    record = make_record([0, 1, 3, -1], eps="8/255")
    write_record(record, board.parent / "records" / "one.json")
    page = render_markdown(defined_board(read_definition(board)))

    assert "| Seeds | Clean | Best known |" in page
    assert "| Gap |" not in page


def test_a_record_of_another_board_is_refused_and_named(board: Path, make_record) -> None:
    record = make_record([0, 1, 3, -1], eps="8/255")
    other = replace(record, eps="4/255")
    write_record(other, board.parent / "records" / "other.json")

    with pytest.raises(SatbenchError, match=r"other\.json with 4 test images .* linf:4/255"):
        defined_board(read_definition(board))


def test_the_boards_that_ship_can_be_read_and_asked_for_by_name() -> None:
    names = [one.name for one in board_definitions()]

    assert "fashion-mnist-linf-0.1" in names
    assert names == [board_definition(name).name for name in names]
    with pytest.raises(SatbenchError, match=r"did you mean 'fashion-mnist-linf-0\.1'"):
        board_definition("fashion-mnist-linf")
