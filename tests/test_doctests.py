"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def modules_with_examples() -> list[str]:
    rooms = {"satbench": ROOT / "satbench"}
    rooms |= {f"satbench.{room}": ROOT / room for room in ("attacks", "model_zoo", "leaderboard")}
    return [
        ".".join((name, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
        for name, folder in rooms.items()
        for path in sorted(folder.rglob("*.py"))
        if ">>> " in path.read_text(encoding="utf-8")
    ]


def test_there_are_examples() -> None:
    assert "satbench.api" in modules_with_examples()


@pytest.mark.parametrize("module", modules_with_examples())
def test_the_examples_of_a_module_run(module: str, tmp_path: Path) -> None:
    results = doctest.testmod(import_module(module), extraglobs={"tmp": tmp_path})

    assert results.attempted > 0
    assert results.failed == 0
