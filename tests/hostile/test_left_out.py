"""A board and `verify --all` leave out a bad record and name it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from satbench.board.definition import board_definition
from satbench.cli.leaderboard import leaderboard

BAD = ("[" * 100_000, "{}", '{"schema": 2}', "9" * 6000, "")


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Return a folder of one good record and several bad ones."""
    folder = tmp_path / "records"
    folder.mkdir()
    good = sorted(board_definition("fashion-mnist-linf-0.1").records.glob("*.json"))[0].read_text()
    (folder / "m.json").write_text(good)
    counted_wrong = json.loads(good)
    counted_wrong["stages"][0]["broken"] += 1
    (folder / "n.json").write_text(json.dumps(counted_wrong))
    (folder / "o.json").write_text(good)  # of the same run again
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    for number, text in enumerate(BAD):
        (folder / f"bad{number}.json").write_text(text)
        (certificates / f"wrong{number}.json").write_text(text)
    return folder


def test_a_board_is_built_without_bad_records_and_names_them(records: Path) -> None:
    built = CliRunner().invoke(leaderboard, ["build", "--records", str(records)])

    named = [line for line in built.stderr.splitlines() if line.startswith("satbench: left out")]
    assert (built.exit_code, len(named)) == (0, 2 * len(BAD) + 2)
    assert sum("cannot be counted" in line for line in named) == 1
    bad = (*records.glob("bad*"), *records.parent.glob("certificates/*"))
    assert all(any(f"{path.name}" in line for line in named) for path in bad)
    table = (records.parent / "leaderboard.csv").read_text().splitlines()
    assert len(table) == 2


def test_check_fails_if_a_record_is_left_out_even_if_all_files_are_up_to_date(
    records: Path,
) -> None:
    words = ["build", "--records", str(records)]
    CliRunner().invoke(leaderboard, words)
    checked = CliRunner().invoke(leaderboard, [*words, "--check"])
    for path in (*records.glob("bad*"), records / "n.json", records / "o.json"):
        path.unlink()
    certificates = CliRunner().invoke(leaderboard, [*words, "--check"])
    for path in records.parent.glob("certificates/*"):
        path.unlink()
    again = CliRunner().invoke(leaderboard, [*words, "--check"])

    assert (checked.exit_code, certificates.exit_code, again.exit_code) == (1, 1, 0)
    assert "out of date:" not in checked.stderr
