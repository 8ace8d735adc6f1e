from __future__ import annotations

import io

from rich.console import Console

from satbench.board.board import build_board
from satbench.board.terminal import leaderboard_table


def _printed(records) -> list[str]:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(leaderboard_table(build_board(records)))
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


def test_a_name_of_38_letters_fits_100_columns_on_one_line(make_record) -> None:
    name = "fmnist-sat-tiny-parametric-softplus-s0"
    lines = _printed([make_record([-1] * 100, name=name)])

    assert [any(name in line for line in lines), max(map(len, lines)) <= 100] == [True, True]


def test_a_name_is_never_taken_for_markup(make_record) -> None:
    assert any("m[bold]x" in line for line in _printed([make_record([1], name="m[bold]x")]))


def test_each_benchmark_stands_under_its_own_title(small_records) -> None:
    lines = "\n".join(_printed(small_records))

    near, far = "shapes, Linf, eps 8/255, n = 200", "shapes, Linf, eps 0.1, n = 200"
    assert 0 < lines.index(near) < lines.index(far)


def test_flagged_models_are_marked_and_counted(small_records) -> None:
    printed = " ".join(_printed(small_records))

    assert "†: 2 of 9 models" in printed
    assert "sat-tiny-relu-s0 †1" in printed


def test_the_caption_explains_the_intervals(make_record) -> None:
    assert any("[a, b]: 95 % Wilson interval" in line for line in _printed([make_record([1])]))
