"""Random texts of specs, radii, settings and files are refused or read back unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from .fuzzing import KINDS, fuzz
from .malformed import INPUTS

EVERY_DAY = 40  # inputs of each kind every day; INPUTS with `-m slow`


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_random_texts_are_refused_or_read_back(kind: str, tmp_path: Path) -> None:
    assert fuzz(kind, tmp_path, EVERY_DAY)["inputs"] >= EVERY_DAY // 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_random_texts_are_refused_or_read_back(kind: str, tmp_path: Path) -> None:
    fuzz(kind, tmp_path, INPUTS)
