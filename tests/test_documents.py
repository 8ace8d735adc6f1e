"""Every code block of the README and of docs/ runs; every command that they show exists."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import click
import pytest
from doc_blocks import (
    LANGUAGES,
    ROOT,
    Block,
    as_expected,
    blocks_of,
    check_command,
    commands_of,
    pages,
)

_WRITTEN = pages(generated=False)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _blocks(path: Path) -> list[Block]:
    return blocks_of(path.read_text(encoding="utf-8"))


def _is_slow(path: Path) -> bool:
    """Whether a page is for the slow tests: what bash runs takes seconds a command."""
    blocks = _blocks(path)
    return any(block.language == "slow" for block in blocks) or any(
        block.language == "sh" and block.runnable().strip() for block in blocks
    )


def _runs(path: Path) -> bool:
    return any(
        (block.language == "python" and not block.needs_more)
        or (block.language == "sh" and block.runnable().strip())
        for block in _blocks(path)
    )


def test_every_block_has_a_language_that_is_known() -> None:
    unknown = [
        f"{_name(path)}:{block.line}: {block.language!r}"
        for path in pages()
        for block in _blocks(path)
        if block.language not in (*LANGUAGES, "setup", "slow")
    ]

    assert unknown == []


def test_no_command_is_a_block_by_indentation() -> None:
    lines = [
        f"{_name(path)}: {line.strip()}"
        for path in pages()
        for line in re.sub(
            r" *```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL
        ).splitlines()
        if line.startswith("    satbench ")
    ]

    assert lines == []


def test_every_command_of_satbench_that_a_page_shows_exists() -> None:
    count, wrong = 0, []
    for path in pages():
        if path.name == "CHANGELOG.md":  # it tells of commands that are gone
            continue
        for words in commands_of(path.read_text(encoding="utf-8")):
            count += 1
            try:
                check_command(words)
            except click.ClickException as error:
                wrong.append(f"{_name(path)}: satbench {' '.join(words)}: {error.format_message()}")

    assert wrong == []
    assert count > 150


@pytest.mark.parametrize("words", [["evil"], ["eval", "--no-such-option"], ["models", "--gone"]])
def test_a_command_that_does_not_exist_is_found(words: list[str]) -> None:
    with pytest.raises(click.ClickException):
        check_command(words)


def test_every_block_of_toml_json_and_python_can_be_read() -> None:
    for path in pages():
        for block in _blocks(path):
            where = f"{_name(path)}:{block.line}"
            if block.language == "toml":
                tomllib.loads(block.text)
            elif block.language == "json":
                json.loads(block.text)
            elif block.language == "python":
                compile(block.text, where, "exec")


def test_every_target_of_make_that_a_page_shows_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    asked = {
        target
        for path in pages()
        if path.name != "CHANGELOG.md"
        for text in re.findall(r"(?:^|`)make ([a-z -]+)", path.read_text("utf-8"), re.MULTILINE)
        for target in text.split()
        if target in targets or "`make " + target in path.read_text("utf-8")
    }

    assert {"demo", "test"} <= asked <= targets


def test_every_test_that_a_page_runs_exists() -> None:
    asked = {
        word.partition("::")[0]
        for path in pages()
        for line in re.findall(r"python -m pytest ([^\n`#]+)", path.read_text("utf-8"))
        for word in line.split()
        if word.startswith("tests/")
    }

    assert [] == [path for path in asked if not (ROOT / path).exists()]
    assert asked


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=_name(path), marks=[pytest.mark.slow] * _is_slow(path))
        for path in _WRITTEN
        if _runs(path)
    ],
)
@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # pyautoattack's, of scipy
def test_the_blocks_of_a_page_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("leaderboard", "examples", "attacks"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    page = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)  # where a dataclass looks for its module
    names = vars(page)
    names["ROOT"] = ROOT
    for block in _blocks(path):
        where = f"{_name(path)}:{block.line}"
        printed = _run(block, names, where)
        if block.expected is not None and printed is not None:
            assert as_expected(block.expected, printed), f"{where} printed\n{printed}"


def _run(block: Block, names: dict[str, object], where: str) -> str | None:
    """Run a block and return what it printed; None where it is not for running."""
    if block.language == "sh" and block.runnable().strip():
        folder = Path(sys.executable).parent
        done = subprocess.run(
            ["bash", "-ec", block.runnable()],
            env={
                **os.environ,
                "PATH": f"{folder}:{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.getcwd(),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{where}: {done.stdout}{done.stderr}"
        return done.stdout
    if block.language in ("python", "setup") and not block.needs_more:
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
            return None
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(block.text, where, "exec"), names)
        return out.getvalue()
    return None


# What must be installed

_NEEDED = {
    "plots": re.compile(r"\.(show|plot|save)\(|satbench (images|plot|curve)\b"),
    "pandas": re.compile(r"\.to_dataframe\("),
}


def _extras(text: str) -> set[str]:
    return set(",".join(re.findall(r"'(?:\.|satbench)\[(.*?)\]'", text)).split(","))


def _uses(text: str) -> set[str]:
    return {extra for extra, use in _NEEDED.items() if use.search(text)}


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_what_a_page_says_to_install_is_enough_for_what_it_shows(page: str) -> None:
    assert _uses(_text(page)) == {"plots", "pandas"}
    assert _uses(_text(page)) <= _extras(_text(page))
    assert _uses(_text(page)) <= _extras(_text("Dockerfile"))


EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.*"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_list_of_examples_names_what_each_needs(name: str) -> None:
    lines = _text("docs/how-to/index.md").splitlines()
    (row,) = (line for line in lines if f"`{name}`" in line)

    assert _uses(_text(f"examples/{name}")) <= _extras(row)


# Numbers from the boards


def test_numbers_that_pages_take_from_the_boards_are_theirs() -> None:
    board = json.loads(_text("leaderboard/fashion-mnist-linf-0.1/leaderboard.json"))
    models = [model for part in board["benchmarks"] for model in part["models"]]
    gap = max(100 * (model["pgd50"] - model["best_known"]) for model in models)
    costs = _text("docs/COST.md").split("\n## ")
    (own,) = (part for part in costs if part.startswith("fashion-mnist, Linf, eps 0.1\n"))
    ratio = re.search(r"with both: (\d+\.\d) times fewer passes", own)

    assert f"overstates robustness by up to {gap:.0f} points" in _text("docs/method.md")
    assert ratio
    assert f"about {float(ratio[1]):.0f} times as many passes" in _text("docs/tutorial.md")
    sentence = "All shipped models have run under all suites at Linf 0.1"
    assert sentence in _text("README.md")
    (other,) = (part for part in costs if part.startswith("fashion-mnist, L2, eps 1\n"))
    rows = [line.split(" | ") for line in other.splitlines() if line.startswith("| fmnist-")]
    less = sorted(float(row[3].partition(",")[0].replace("−", "-")) for row in rows)
    words = f"it leaves {-less[-1]:.0f} to {-less[0]:.0f} points more than `fast` on all four"
    assert less[3] < 0
    assert words in _text("docs/method.md")
    suites = ("transfer", "pgd50", "autoattack", "fast")
    assert [] == [model["model"] for model in models for suite in suites if model[suite] is None]
    assert [] == [model["model"] for model in models if " strongest(" not in model["attacks"]]


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
