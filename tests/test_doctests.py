"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

import satbench

ROOT = Path(__file__).parents[1]


def modules_with_examples() -> list[str]:
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "satbench").rglob("*.py"))
        if ">>> " in path.read_text(encoding="utf-8")
    ]


def test_there_are_examples() -> None:
    assert "satbench.evaluation.api" in modules_with_examples()


def without_example(public: dict[str, object]) -> list[str]:
    return [name for name, thing in public.items() if ">>> " not in (inspect.getdoc(thing) or "")]


def test_every_public_name_has_an_example() -> None:
    public = {name: getattr(satbench, name) for name in satbench.__all__ if name != "__version__"}

    assert without_example(public) == []


def test_every_function_that_the_pages_and_examples_import_has_an_example() -> None:
    # The entry point of the command line is shown by commands.
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.py")]
    pages += [ROOT / "README.md", *(ROOT / "examples").rglob("*.py")]
    imported = re.compile(r"^from (satbench[\w.]*) import ([\w, ]+)$", re.MULTILINE)
    public = {
        f"{module}.{name.strip()}": getattr(import_module(module), name.strip())
        for page in pages
        for module, names in imported.findall(page.read_text(encoding="utf-8"))
        for name in names.split(",")
        if module != "satbench.cli"
    }
    functions = {name: thing for name, thing in public.items() if inspect.isfunction(thing)}

    assert len(functions) > 3
    assert without_example(functions) == []


@pytest.mark.sampled(30)
@pytest.mark.parametrize("module", modules_with_examples())
def test_the_examples_of_a_module_run(module: str, tmp_path: Path) -> None:
    results = doctest.testmod(import_module(module), extraglobs={"tmp": tmp_path})

    assert results.attempted > 0
    assert results.failed == 0
