"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def modules_with_examples() -> list[str]:
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "satbench").rglob("*.py"))
        if ">>> " in path.read_text(encoding="utf-8")
    ]


def test_there_are_examples() -> None:
    assert "satbench.evaluation.api" in modules_with_examples()


@pytest.mark.parametrize("module", modules_with_examples())
def test_the_examples_of_a_module_run(module: str, tmp_path: Path) -> None:
    results = doctest.testmod(import_module(module), extraglobs={"tmp": tmp_path})

    assert results.attempted > 0
    assert results.failed == 0
