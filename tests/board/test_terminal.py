from __future__ import annotations

import io

import pytest
from rich.console import Console

from satbench.board.board import build_board
from satbench.board.exports import benchmark_objects
from satbench.board.published import numbers_of
from satbench.board.terminal import leaderboard_table


def _printed(records, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    numbers = numbers_of(benchmark_objects(build_board(records)))
    console.print(leaderboard_table(numbers, width))
    return console.file.getvalue().splitlines()


def _cells(lines: list[str], name: str) -> list[str]:
    (line,) = (line for line in lines if name in line)
    return line.replace(name, "").split()


def test_a_model_has_a_line_with_all_its_numbers(make_record) -> None:
    # The interval by hand: 3 of 8, (3 + 1.96²/2 ± 1.96 sqrt(3 * 5 / 8 + 1.96²/4)) / (8 + 1.96²).
    expected = ["1", "87.5", "–", "62.5", "37.5", "–", "37.5", "[13.7,", "69.4]", "25.0"]
    lines = _printed([make_record([0, 1, 1, 2, 3, -1, -1, -1], name="fmnist-sat")])

    assert expected == _cells(lines, "fmnist-sat")


def test_a_number_that_was_not_measured_is_a_dash(make_record) -> None:
    lines = _printed([make_record([1, -1], ["square(queries=1)"], name="foreign")])

    assert _cells(lines, "foreign") == [
        "1",
        "†1",
        "100.0",
        "–",
        "–",
        "–",
        "–",
        "50.0",
        "[9.5,",
        "90.5]",
        "–",
    ]


@pytest.mark.parametrize(
    ("width", "letters"), [(100, 38), (100, 60), (80, 20), (80, 38), (80, 55), (60, 30)]
)
def test_a_name_is_never_broken(make_record, width: int, letters: int) -> None:
    name = "fmnist-sat-tiny-parametric-softplus-s0-of-somebody-in-a-lab"[:letters].ljust(
        letters, "x"
    )
    lines = _printed([make_record([-1] * 100, name=name)], width)

    assert [any(name in line for line in lines), max(map(len, lines)) <= width] == [True, True]


def test_a_narrow_terminal_goes_without_columns_before_names(make_record) -> None:
    records = [make_record([0, 1, 1, 2, 3, -1, -1, -1], name="a" * 38)]
    wide, narrow = (_cells(_printed(records, width), "a" * 38) for width in (100, 80))

    assert narrow == ["1", "87.5", "62.5", "37.5", "–", "37.5", "25.0"]
    assert wide == ["1", "87.5", "–", "62.5", "37.5", "–", "37.5", "[13.7,", "69.4]", "25.0"]


def test_a_name_is_never_taken_for_markup(make_record) -> None:
    assert any("m[bold]x" in line for line in _printed([make_record([1], name="m[bold]x")]))


def test_each_benchmark_stands_under_its_own_title(small_records) -> None:
    lines = "\n".join(_printed(small_records))

    near, far = "shapes, Linf, eps 8/255, n = 200", "shapes, Linf, eps 0.1, n = 200"
    assert 0 < lines.index(near) < lines.index(far)


def test_a_title_that_is_too_long_is_broken_before_its_n(small_records) -> None:
    titles = [
        line.strip() for line in _printed(small_records, 60) if "Linf" in line or "n =" in line
    ]

    assert titles == ["shapes, Linf, eps 8/255,", "n = 200", "shapes, Linf, eps 0.1,", "n = 200"]


def test_flagged_models_are_marked_and_counted(small_records) -> None:
    printed = " ".join(_printed(small_records))

    assert "†: how many flags; 2 of 9 models" in printed
    assert "sat-tiny-relu-s0 †1" in printed


def test_the_caption_explains_the_intervals(make_record) -> None:
    assert any("[a, b]: 95 % Wilson interval" in line for line in _printed([make_record([1])]))
