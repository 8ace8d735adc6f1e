"""What `leaderboard show` reads, chooses and orders."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import pytest
from click import Choice

from satbench.board.board import build_board
from satbench.board.definition import board_definition, board_definitions
from satbench.board.exports import benchmark_objects, render_json
from satbench.board.publish import published_board
from satbench.board.published import Order, chosen, numbers_of, published_numbers, read_numbers
from satbench.cli.leaderboard import show
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.core.text.json_text import json_text

BOARD = "fashion-mnist-linf-0.1"


@pytest.fixture(scope="module")
def numbers(small_board):
    return numbers_of(benchmark_objects(small_board))


def names(boards) -> list[str]:
    return [model.model for board in boards for model in board.models]


def test_the_published_numbers_are_those_of_the_records() -> None:
    read, made = published_numbers(), json.loads(render_json(published_board()))

    assert [board.values for board in read or ()] == made["benchmarks"]


@pytest.mark.parametrize("missing", [True, False])
def test_a_file_that_is_not_of_all_records_is_not_read(
    missing: bool, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = board_definition(BOARD)
    (tmp_path / "records").mkdir()
    for path in sorted(board.records.glob("*.json"))[int(not missing) :]:
        (tmp_path / "records" / path.name).write_bytes(path.read_bytes())
    if not missing:
        (tmp_path / "leaderboard.json").write_bytes(
            (board.folder / "leaderboard.json").read_bytes()
        )
    monkeypatch.setattr(
        "satbench.board.published.board_definitions", lambda: [replace(board, folder=tmp_path)]
    )

    assert published_numbers() is None


def test_a_wrong_file_is_named(tmp_path) -> None:
    with pytest.raises(SatbenchError, match="the board here is wrong"):
        read_numbers('{"schema": 5, "benchmarks": [{"dataset": "d"}]}', "here")


def test_the_highest_come_first_and_the_unknown_last(numbers) -> None:
    by_clean = [model.clean for board in chosen(numbers, order="clean") for model in board.models]
    far = chosen(numbers, order="autoattack")[-1].models

    assert by_clean[1:] == sorted(by_clean[1:], reverse=True)
    assert [model.autoattack for model in far][-1] is None
    assert names(chosen(numbers, order="name"))[1:] == sorted(names(numbers)[1:])


def test_the_first_are_those_of_each_board(numbers) -> None:
    assert [len(board.models) for board in chosen(numbers, top=2)] == [1, 2]


def test_an_activation_names_all_its_settings(make_record) -> None:
    records = [
        make_record([-1, -1], name=name, activation=spec)
        for name, spec in (("a", "celu(alpha=2)"), ("b", "celu(alpha=1)"), ("c", "elu(alpha=1)"))
    ]
    boards = numbers_of(benchmark_objects(build_board(records)))

    assert names(chosen(boards, activation="celu")) == ["a", "b"]
    assert names(chosen(boards, activation="celu(alpha=2)")) == ["a"]
    with pytest.raises(UnknownNameError, match="did you mean 'celu'"):
        chosen(boards, activation="cellu")


def test_what_is_chosen_is_all_that_the_json_tells(numbers) -> None:
    (board,) = (one for one in chosen(numbers, activation="silu") if one.eps == "0.1")
    values = json.loads(json_text(dict(board.values)))

    assert {model["activation"] for model in values["models"]} == {"silu"}
    assert {group["activation"] for group in values["groups"]} == {"silu"}
    assert values["flags"] == []


def test_only_an_existing_data_set_can_be_chosen(numbers) -> None:
    assert len(chosen(numbers, dataset="shapes")) == len(numbers)
    with pytest.raises(UnknownNameError, match="unknown dataset 'shape': did you mean 'shapes'"):
        chosen(numbers, dataset="shape")


def test_the_command_takes_every_order() -> None:
    (option,) = (one.type for one in show.params if one.name == "order")

    assert isinstance(option, Choice)
    assert tuple(option.choices) == get_args(Order)


def test_showing_the_published_boards_computes_nothing() -> None:
    code = (
        "import sys; sys.argv = ['satbench', 'leaderboard', 'show', '--json'];"
        "from satbench.cli import cli; cli.main(standalone_mode=False);"
        "names = ('torch', 'scipy', 'satbench.board.board');"
        "print([one for one in names if one in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert len(json.loads(done.stdout)["benchmarks"]) >= 1
    assert done.stderr == "[]\n"


def test_each_filled_board_has_its_file() -> None:
    filled = [one for one in board_definitions() if one.is_filled]

    assert all((one.folder / "leaderboard.json").is_file() for one in filled)
