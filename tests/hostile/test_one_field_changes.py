"""Files with one field changed to an odd value: refused in one sentence, or read; never a crash."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

import pytest

from satbench.core.errors import SatbenchError

from .kinds_of_files import KINDS
from .odd_values import every_change

DAILY = 150  # changes of each kind of file every day; all of them with `-m slow`


def _try_all(kind: str, folder: Path, most: int | None) -> int:
    """Read the changed files; return how many were refused.  Anything else that is raised fails."""
    original, read = KINDS[kind]
    read(original(), folder)  # as it is, it is read
    texts = every_change(json.loads(original()))
    if most is not None:
        texts = random.Random(0).sample(texts, min(most, len(texts)))
    told: list[str] = []
    for text in texts:
        began = time.process_time()
        try:
            read(text, folder)
        except SatbenchError as error:
            told.append(str(error))
        assert time.process_time() - began < 5
    assert all(10 < len(said) < 2_000 and "\n" not in said for said in told)
    return len(told)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_one_field_changes_is_refused_or_read(kind: str, tmp_path: Path) -> None:
    assert _try_all(kind, tmp_path, DAILY) > DAILY // 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_one_field_change_is_refused_or_read(kind: str, tmp_path: Path) -> None:
    refused = _try_all(kind, tmp_path, None)
    total = len(every_change(json.loads(KINDS[kind][0]())))
    sys.stdout.write(f"{kind}: {total} changes, {refused} refused, {total - refused} read\n")
    assert refused > total // 3
