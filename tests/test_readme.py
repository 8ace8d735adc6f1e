"""The README is short, its links lead somewhere, and its numbers are those of pages and records."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BEGIN, END = "## What the studies found", "## Evaluate"
EFFECT = re.compile(r"[+−]\d+\.\d \[[+−]\d+\.\d, [+−]\d+\.\d\]")


def test_every_finding_has_one_number_which_stands_on_the_page_that_it_names() -> None:
    summary = README[README.index(BEGIN) : README.index(END)]
    points = summary.split("\n- ")[1:]
    for point in points:
        pages = [ROOT / page for page in re.findall(r"\((docs/studies/[\w.-]+\.md)\)", point)]
        text = "".join(page.read_text(encoding="utf-8") for page in pages)
        effects = EFFECT.findall(point)
        assert len(effects) == 1
        assert effects[0] in text

    assert len(points) == 4


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 1200
    assert len(re.findall(r"\d+\.\d+", README)) <= 60


def test_the_first_command_stands_on_the_first_screen() -> None:
    assert README.index("make demo") < README.index("\n## ")
    assert README[: README.index("make demo")].count("\n") < 20


def test_the_table_has_eight_rows_at_most_and_six_columns() -> None:
    begin, end = (README.index(f"<!-- leaderboard:{word} -->") for word in ("begin", "end"))
    lines = [line for line in README[begin:end].splitlines() if line.startswith("|")]
    rows = [line for line in lines if not line.startswith(("| Training", "| ---"))]

    assert 1 <= len(rows) <= 8
    assert {line.count(" | ") + 1 for line in lines} == {6}


def test_every_link_leads_to_a_file() -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    own = [target for target in targets if "://" not in target and not target.startswith("../../")]

    assert [] == [target for target in own if not (ROOT / target).exists()]
    assert len(own) > 20


def test_the_changelog_has_one_short_line_for_each_change() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    written = [line for line in lines if line and not line.startswith("#")]

    # Two branches that edit the same lines are merged to both texts: remove the older one.
    assert [] == [line[:60] for line in written if written.count(line) > 1 or len(line) > 400]
    assert all(line.startswith("- ") for line in written[1:])
    assert [line for line in lines if line.startswith("### ")] == [
        "### Results",
        "### Added",
        "### Changed",
    ]


def test_the_chart_shows_what_the_records_say(monkeypatch) -> None:
    from satbench.board.publish import published_board

    monkeypatch.setattr(sys, "path", [str(ROOT / "docs/site"), *sys.path])
    import gap_chart

    rows = {row.model.name: row for one in published_board().benchmarks for row in one.rows}
    shown = gap_chart.shown()
    assert len(shown) == len(gap_chart.MODELS) == 6
    for name, (_, pgd, best) in zip(gap_chart.MODELS, shown, strict=True):
        survivors = sum(rows[name].robust)
        assert best == 100 * survivors / len(rows[name].robust)
        assert pgd >= best

    most = max(pgd - best for _, pgd, best in shown)
    assert f"the second is up to {most:.0f} points lower" in README
