from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from satbench.board.board import build_board
from satbench.board.exports import render_csv, render_json
from satbench.board.publish import board_files
from satbench.board.tables import render_markdown, render_summary
from satbench.core.markdown import percent

GOLDEN = Path(__file__).parents[1] / "golden" / "leaderboard"


def test_the_markdown_of_a_small_board_is_the_golden_one(small_board) -> None:
    # After a wanted change: write render_markdown(small_board) there and read the diff.
    expected = (GOLDEN / "LEADERBOARD.md").read_text(encoding="utf-8")

    assert expected == render_markdown(small_board)


def test_the_csv_of_a_small_board_is_the_golden_one(small_board) -> None:
    expected = (GOLDEN / "leaderboard.csv").read_text(encoding="utf-8")

    assert expected == render_csv(small_board)


@pytest.mark.parametrize("name", ["COST.md", "AGREEMENT.md"])
def test_the_pages_beside_the_board_are_the_golden_ones(small_board, name) -> None:
    expected = (GOLDEN / name).read_text(encoding="utf-8")

    assert expected == board_files(small_board, GOLDEN)[GOLDEN / name]


def test_a_flagged_model_is_marked_and_its_flag_says_what_to_run(small_board) -> None:
    page = render_markdown(small_board)

    assert [1, 1] == [
        page.count("sat-tiny-relu-s0 (`769acaf5`) †1 |"),
        page.count("| zero-gradients | 1 of 8 | the gradient is 0 | run square on all"),
    ]


def test_the_json_holds_the_flags_in_full(small_board) -> None:
    benchmark = json.loads(render_json(small_board))["benchmarks"][1]

    expected = [
        ("a|b <model>", "no-strong-attack", 90, 200),
        ("sat-tiny-relu-s0", "zero-gradients", 150, 160),
    ]
    assert expected == [
        tuple(flag[key] for key in ("model", "name", "images", "of")) for flag in benchmark["flags"]
    ]


def test_the_csv_holds_flags_and_passes_beside_each_other(small_board) -> None:
    (line,) = (line for line in _lines(small_board) if line["fast"])

    # By hand: 15 passes an image; AutoAttack's parts met 99 and 99 of 160 behind PGD-50.
    expected = ["zero-gradients", "15.0", "-0.005"]
    keys = ("flags", "fast_passes", "fast_minus_autoattack")
    assert expected == [line[key] for key in keys]


def test_images_in_a_random_order_are_said_to_be(make_record) -> None:
    record = make_record([1, -1])
    info = replace(record.dataset, population=50)

    page = render_markdown(build_board([replace(record, dataset=info)]))
    assert "The first 2 of a random order of 50 images of the test split" in page


def _lines(board) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_csv(board))))


def test_the_csv_has_a_line_for_each_model_of_each_benchmark(small_board) -> None:
    expected = [row.model.name for bench in small_board.benchmarks for row in bench.rows]

    assert expected == [line["model"] for line in _lines(small_board)]


def test_the_csv_leaves_empty_what_was_not_measured(make_record) -> None:
    (line,) = _lines(build_board([make_record([1, -1], ["square(queries=1)"])]))

    keys = ("pgd50", "pgd50_count", "pgd50_low", "pgd50_high", "autoattack", "gap")
    assert [line[key] for key in keys] == [""] * 6


def test_the_csv_gives_shares_in_full(make_record) -> None:
    (line,) = _lines(build_board([make_record([1, -1, -1])]))

    assert ("2", str(2 / 3)) == (line["best_known_count"], line["best_known"])


def test_the_json_holds_the_same_numbers_as_the_csv(small_board) -> None:
    benchmarks = json.loads(render_json(small_board))["benchmarks"]
    models = [model for benchmark in benchmarks for model in benchmark["models"]]

    shown = [{key: "" if v is None else str(v) for key, v in model.items()} for model in models]
    lines = [
        {key: value for key, value in line.items() if key in models[0]}
        for line in _lines(small_board)
    ]
    assert lines == shown


def test_the_json_holds_the_groups(small_board) -> None:
    groups = json.loads(render_json(small_board))["benchmarks"][1]["groups"]

    expected = {"mean": 0.355, "sd": 0.005, "seeds": 3}
    assert [expected] == [
        group["autoattack"]
        for group in groups
        if (group["recipe"], group["activation"]) == ("sat", "relu")
    ]


def test_the_json_holds_the_comparison_with_relu(small_board) -> None:
    (pair,) = json.loads(render_json(small_board))["benchmarks"][1]["against_relu"]

    # By hand from the counts of the fixture: 93, 90, 87 against 70, 71, 72 of 200.
    assert tuple(pair["autoattack"][key] for key in ("difference", "seeds", "is_shown")) == (
        0.095,
        3,
        True,
    )


def test_a_difference_whose_interval_covers_zero_is_said_not_to_be_shown(make_record) -> None:
    counts = {("relu", 0): 5, ("relu", 1): 5, ("silu", 0): 4, ("silu", 1): 7}
    records = [
        make_record([-1] * n + [1] * (10 - n), name=f"{a}{s}", activation=a, train_seed=s)
        for (a, s), n in counts.items()
    ]

    # By hand: differences -10 and +20 points; variances 0.0225 by seed, 0.008056 by image and
    # 0.007763 by cell; 5 ± 12.7062 * 15.098, and t = 0.331 at one degree of freedom.
    page = render_markdown(build_board(records))
    assert "| +5.0 [−186.8, +196.8] (2 seeds, p = 0.8) |" in page
    assert "p < 0.05**: here 0, in bold" in page


def test_a_difference_of_one_seed_has_no_interval(make_record) -> None:
    records = [
        make_record([-1] * n + [1] * (10 - n), name=a, activation=a)
        for a, n in {"relu": 5, "silu": 4}.items()
    ]

    assert "| −10.0 (1 seed: no interval) |" in render_markdown(build_board(records))


def test_a_mean_over_some_of_the_seeds_says_so(make_record) -> None:
    pgd = "pgd(steps=50,step=eps/4)"
    records = [
        make_record([1, -1], name="a"),
        make_record([1, -1], [pgd], name="b", train_seed=1),
    ]

    assert "| 50.0 (1 of 2) |" in render_markdown(build_board(records))


def test_a_model_without_autoattack_is_said_to_be_attacked_less(make_record) -> None:
    board = build_board([make_record([1, -1], ["square(queries=1)"])])

    assert "was attacked less" in render_markdown(board)


def test_if_every_model_has_autoattack_none_is_said_to_be_attacked_less(make_record) -> None:
    # None survives: a share of 0 is a number too.
    assert "was attacked less" not in render_markdown(build_board([make_record([1, 1])]))


@pytest.mark.parametrize(("attacked", "said"), [((), ""), ("a", "1 of 2"), (("a", "b"), "all")])
def test_a_board_says_on_how_many_models_the_strongest_suite_has_run(
    attacked: Sequence[str], said: str, make_record
) -> None:
    suite = {True: ["strongest(version=2,source=none)"], False: ["pgd(steps=1)"]}
    board = build_board([make_record([1, -1], suite[one in attacked], name=one) for one in "ab"])
    found = re.findall(r"`strongest` has run on (all|\d+ of \d+) models", render_markdown(board))

    assert found == ([said] if said else [])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a|b", r"a\|b"),
        ("<b>&", "&lt;b>&amp;"),
        ("a_b*c`d", r"a\_b\*c\`d"),
        ("[a](b)", r"\[a\](b)"),
        ("a\nb", "a b"),
    ],
)
def test_a_name_cannot_be_read_as_markdown(make_record, name, expected) -> None:
    page = render_markdown(build_board([make_record([1], name=name)]))

    assert f"| 1 | {expected} (`" in page


def test_every_table_has_as_many_cells_in_each_line(small_board) -> None:
    page = render_markdown(small_board).replace("\\|", "")
    tables = [part.splitlines() for part in page.split("\n\n") if part.startswith("| ")]

    assert [1] * len(tables) == [len({line.count("|") for line in table}) for table in tables]


def test_the_summary_links_to_the_page_with_each_seed(small_board) -> None:
    assert "[docs/L.md](docs/L.md)" in render_summary(small_board, "docs/L.md")


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_the_summary_has_the_first_kinds_of_the_largest_benchmark(small_board, rows: int) -> None:
    summary = render_summary(small_board, "L.md", rows)
    largest = max(small_board.benchmarks, key=lambda one: len(one.rows))
    kinds = [line for line in summary.splitlines() if line.startswith("| ") and "tiny" in line]

    assert len(kinds) == min(rows, len(largest.groups))
    assert summary.count("sat-tiny") == 0  # no single model


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5214, "52.1"), (1.0, "100.0"), (-0.0001, "0.0"), (-0.012, "−1.2")]
)
def test_percent_has_one_decimal_and_no_negative_zero(share: float, expected: str) -> None:
    assert expected == percent(share)


def test_a_long_table_shows_the_first_rows_and_says_how_many_more_there_are(
    small_board, monkeypatch: pytest.MonkeyPatch
) -> None:
    (largest,) = (one for one in small_board.benchmarks if len(one.rows) > 3)
    whole = render_markdown(small_board).splitlines()
    monkeypatch.setattr("satbench.core.markdown.MOST_LINES", 3)
    short = render_markdown(small_board).splitlines()
    told = {f"The other {len(largest.rows) - 3} rows are in `leaderboard.csv`."}
    if len(largest.groups) > 3:
        told |= {f"The other {len(largest.groups) - 3} rows are in `leaderboard.json`."}

    assert {line for line in short if line.startswith("The other ")} == told
    assert sum("` and 2 more in `leaderboard.csv`." in line for line in short) == 1
    assert sum("(`" in line for line in whole) - sum("(`" in line for line in short) == (
        len(largest.rows) - 3
    )
