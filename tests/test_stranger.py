"""Who follows CONTRIBUTING.md adds an attack, an architecture, a recipe, a data set and a board.

That takes five files (`tests/stranger/`) and one line in each registry, in a checkout of its own
with an environment of its own.  Every command that CONTRIBUTING.md names then ends well.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = Path(__file__).parent / "stranger"
LINES = {
    "satbench/attacks/registry.py": (
        '    "attack",\n    (\n',
        'Entry("stripes", "satbench.attacks.score.stripes:Stripes", "random stripes", "our own"),',
    ),
    "satbench/networks/registry.py": (
        '    "architecture",\n    (\n',
        'Entry("two-layers", "satbench.networks.two_layers:TwoLayers", "two convolutions"),',
    ),
    "satbench/data/_registry.py": (
        '    "dataset",\n    (\n',
        'Entry("bars", "satbench.data.bars:load", "16×16 computed images, 4 classes", "our own"),',
    ),
}
NOT_OF_A_CHECKOUT = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", ".runs")
MADE_AT_THE_TOP = {"runs", "results", "demo", "site", "page", "dist", "build"}
TOOLS = {"pytest": "pytest", "mypy": "mypy", "basedpyright": "basedpyright", "satbench": "satbench"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, with an environment that runs the copy's code and no other."""
    folder = tmp_path_factory.mktemp("stranger") / "satbench"
    shutil.copytree(
        ROOT,
        folder,
        ignore=lambda place, names: (
            NOT_OF_A_CHECKOUT(place, names) | (MADE_AT_THE_TOP if Path(place) == ROOT else set())
        ),
    )
    venv.create(folder / ".venv", with_pip=False)
    (packages,) = (folder / ".venv").glob("lib/python*/site-packages")
    # The packages installed here but for satbench: files in there that add folders are not read.
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "stranger.pth").write_text("\n".join([str(folder), *shared]))
    bin = folder / ".venv" / "bin"
    (bin / "ruff").symlink_to(str(shutil.which("ruff", path=Path(sys.executable).parent)))
    for name, module in TOOLS.items():  # what pip would write
        (bin / name).write_text(f'#!/bin/sh\nexec "{bin}/python" -m {module} "$@"\n')
        (bin / name).chmod(0o755)
    return folder


def call(checkout: Path, command: str) -> str:
    """Run a command line as a person in the checkout would; return what it prints."""
    path = f"{checkout / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PY")}
    done = subprocess.run(
        command,
        shell=True,
        cwd=checkout,
        env={**kept, "PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def commands_to_run() -> list[str]:
    """Return the commands of CONTRIBUTING.md for whoever added something."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = text.partition("Then write the generated pages")[2].partition("```sh\n")[2]
    return re.findall(r"^([^#\n`]*\w)", block.partition("```")[0], re.MULTILINE)


def add_everything(checkout: Path) -> tuple[int, int]:
    """Add what a stranger adds; return the number of new files and of changed lines."""
    found = [path for path in FILES.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    files = [path.relative_to(FILES) for path in found]
    for name in files:
        assert not (checkout / name).exists()
        (checkout / name).parent.mkdir(exist_ok=True)
        shutil.copy(FILES / name, checkout / name)
    for name, (behind, line) in LINES.items():
        text = (checkout / name).read_text(encoding="utf-8")
        assert text.count(behind) == 1
        changed = text.replace(behind, f"{behind}        {line}\n")
        (checkout / name).write_text(changed, encoding="utf-8")
    return len(files), len(LINES)


@pytest.mark.slow
def test_five_files_and_a_line_each_add_all_of_it_and_everything_is_green(checkout: Path) -> None:
    files, lines = add_everything(checkout)
    assert files == 5
    assert lines <= 5

    model = "runs/bars-pgd2-two-layers-relu-s0/bars-pgd2-two-layers-relu-s0.json"
    board = "leaderboard/bars-linf-0.1"
    call(checkout, "satbench train --recipe bars-pgd2 --seed 0 --out runs --quiet")
    call(
        checkout,
        f"satbench eval --model {model} --dataset bars --n-examples 100 --eps 0.1 "
        f"--attack pgd-50 --attack stripes --out {board}/records --quiet",
    )
    commands = commands_to_run()
    assert [command.split()[0] for command in commands] == ["satbench", "satbench", "make"]
    for command in commands:
        call(checkout, command)

    (benchmark,) = json.loads((checkout / board / "leaderboard.json").read_text())["benchmarks"]
    assert [row["architecture"] for row in benchmark["models"]] == ["two-layers(width=4)"]
