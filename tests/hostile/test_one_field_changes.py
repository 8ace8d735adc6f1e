"""Files with one field changed to an odd value are refused in one sentence or read."""

from __future__ import annotations

from pathlib import Path

import pytest

from .kinds_of_files import KINDS
from .malformed import one_field_changes

DAILY = 150  # changes per kind of file every day; all of them with `-m slow`


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_one_field_changes_is_refused_or_read(kind: str, tmp_path: Path) -> None:
    assert one_field_changes(kind, tmp_path, DAILY)["refused"] > DAILY // 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_one_field_change_is_refused_or_read(kind: str, tmp_path: Path) -> None:
    counts = one_field_changes(kind, tmp_path)

    assert counts["refused"] > counts["inputs"] // 3
