"""`satbench verify --all` checks every record though one is bad, and names that one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from satbench.board.definition import board_definition
from satbench.cli import cli
from satbench.data import Dataset, load_dataset
from satbench.records.witnesses import find_witnesses, witnesses_path


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two shipped records, and between them bad ones: no JSON, a changed digit, no witnesses."""
    images: Dataset = load_dataset("fashion-mnist", "test", 500)
    monkeypatch.setattr("satbench.evaluation.given.load_dataset", lambda *_, **__: images)
    found = sorted(board_definition("fashion-mnist-linf-0.1").records.glob("*silu-s0*.json"))
    first, last = tmp_path / "a.json", tmp_path / "z.json"
    for path, old in ((first, found[0]), (last, found[1])):
        shutil.copy(old, path)
        digest = json.loads(old.read_text())["witnesses_digest"]
        shutil.copy(find_witnesses(old, digest), witnesses_path(path))
    (tmp_path / "no-json.json").write_text("[")
    text = first.read_text()
    digit = text.index('"forwards": ') + len('"forwards": ')
    (tmp_path / "digit.json").write_text(f"{text[:digit]}9{text[digit:]}")
    shutil.copy(witnesses_path(first), witnesses_path(tmp_path / "digit.json"))
    (tmp_path / "alone.json").write_text(text)
    every = sorted(tmp_path.glob("*.json"))
    monkeypatch.setattr("satbench.proofs.verification.committed_records", lambda: every)
    return every


def test_the_good_ones_hold_the_bad_ones_are_named_and_the_exit_is_1(records: list[Path]) -> None:
    done = CliRunner().invoke(cli, ["verify", "--all", "--quiet", "--json"])
    told = json.loads(done.output)

    assert done.exit_code == 1
    assert {Path(one["path"]).stem: one["confirmed"] for one in told} == {
        "a": True,
        "alone": False,
        "digit": False,
        "no-json": False,
        "z": True,
    }
    assert all(one["faults"] for one in told if not one["confirmed"])
    assert len(records) == 5
