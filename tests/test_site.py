"""The documentation site: its generated pages are complete, and it builds without a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import satbench
from satbench.cli import cli

ROOT = Path(__file__).parents[1]


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A function that imports a module of docs/site."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "site"))

    def load(name: str) -> ModuleType:
        return import_module(name)

    return load


def test_the_command_line_has_every_command_and_every_option(part) -> None:
    reference = part("cli_reference")
    page = reference.page()
    commands = list(reference.commands())

    assert {words[1] for words, _ in commands if len(words) == 2} == set(cli.list_commands(None))
    for words, context in commands:
        start = page.index(f"# {' '.join(words)}\n")
        text = page[start : page.index("\n```\n", start)]
        options = [name for one in context.command.params for name in one.opts if name[:2] == "--"]
        assert [] == [name for name in options if name not in text]


def test_the_python_page_has_every_public_name(part) -> None:
    page = part("python_reference").page()
    names = [name for name in satbench.__all__ if not name.startswith("__")]

    assert [] == [name for name in names if f'heading: "satbench.{name}"' not in page]


def test_examples_in_docstrings_become_blocks(part) -> None:
    pytest.importorskip("griffe")
    text = "Do it.\n\n>>> 1 + 1\n2\n>>> 2\n2\n\nMore."

    expected = "Do it.\n\n```pycon\n>>> 1 + 1\n2\n>>> 2\n2\n```\n\nMore."
    assert part("doctest_blocks").fenced(text) == expected


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "[b](../leaderboard/README.md#x)", "[b](leaderboard/README.md#x)"),
        ("how-to/train.md", "[t](../training.md)", "[t](../training.md)"),
        ("CONTRIBUTING.md", "[a](docs/how-to/own-attack.md)", "[a](how-to/own-attack.md)"),
        ("index.md", "[the code](../satbench/__init__.py)", "the code"),
        ("index.md", "[gone](gone.md)", "[gone](gone.md)"),
        ("index.md", "[web](https://example.org)", "[web](https://example.org)"),
        ("index.md", "```text\n[b](../README.md)\n```", "```text\n[b](../README.md)\n```"),
    ],
)
def test_links_lead_to_pages_of_the_site(part, page: str, link: str, expected: str) -> None:
    pytest.importorskip("mkdocs")

    class Page:
        class file:  # noqa: N801
            src_uri = page

    assert part("hooks").on_page_markdown(link, Page, None, None) == expected


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert "satbench.evaluate" in (tmp_path / "reference/python/index.html").read_text("utf-8")
