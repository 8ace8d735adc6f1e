"""Inputs guided by coverage (atheris), if that package is installed; only among slow tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from satbench.board.definition import board_definition

PROGRAM = Path(__file__).with_name("atheris_files.py")


@pytest.mark.slow
def test_coverage_guided_inputs_are_refused_or_read(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    board = board_definition("fashion-mnist-linf-0.1")
    for number, path in enumerate((board.folder / "board.toml", *board.records.glob("*s0*.json"))):
        (corpus / str(number)).write_bytes(path.read_bytes())

    words = [sys.executable, str(PROGRAM), "-runs=20000", "-max_total_time=300", str(corpus)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (done.returncode, list(tmp_path.glob("crash-*"))) == (0, []), done.stderr[-3000:]
