"""The package as people install it: one checkout's environment runs one checkout's code."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from satbench.core.content import content_folder

ROOT = Path(__file__).parents[1]
CLI = "import sys; from satbench.cli import main; sys.argv[0] = 'satbench'; main()"
ASK = "import satbench; print(satbench.__file__, 'evaluate' in satbench.__all__)"


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_package_imports_in_the_folder_above_a_clone(tmp_path: Path) -> None:
    (tmp_path / "satbench").symlink_to(ROOT, target_is_directory=True)

    place, evaluates = run(sys.executable, "-c", ASK, cwd=tmp_path).split()

    assert (ROOT / "satbench" / "__init__.py", "True") == (Path(place), evaluates)


def test_another_checkouts_tests_run_that_checkouts_code(tmp_path: Path) -> None:
    for folder in ("satbench", "attacks"):
        (tmp_path / folder).symlink_to(ROOT / folder, target_is_directory=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_place.py").write_text(
        "import sys\nfrom pathlib import Path\nimport satbench.attacks.registry\n"
        "import satbench.records.record\n"
        "def test_place():\n"
        "    ours = [m for n, m in sys.modules.items() if n.split('.')[0] == 'satbench']\n"
        f"    assert all(Path(m.__file__).is_relative_to({str(tmp_path)!r}) for m in ours)\n"
        "    assert len(ours) > 3\n"
    )
    command = ["-c", "import sys, pytest; sys.exit(pytest.main(['-q', 'tests/test_place.py']))"]

    run(
        sys.executable, "-P", *command, cwd=tmp_path
    )  # -P: not even the folder stood in is searched


def test_content_is_that_of_the_code() -> None:
    assert content_folder("leaderboard") == ROOT / "leaderboard"
    assert content_folder("model_zoo") == ROOT / "model_zoo"


@pytest.mark.slow
def test_a_built_wheel_evaluates_and_shows_the_board(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    run(*build, cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    place = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(place)
    assert wheel.stat().st_size < 15_000_000
    assert not [*place.rglob("witnesses/*"), *place.rglob("*.witnesses.npz")]
    command = [sys.executable, "-P", "-c", CLI]

    name = "fmnist-sat-tiny-relu-s0"
    arguments = ["--model", name, "--attack", "pgd-2", "--n-examples", "20", "--out", "results"]
    where = run(sys.executable, "-P", "-c", ASK, cwd=tmp_path, PYTHONPATH=str(place)).split()[0]
    run(*command, "eval", *arguments, cwd=tmp_path, PYTHONPATH=str(place))
    board = run(*command, "leaderboard", "show", cwd=tmp_path, PYTHONPATH=str(place), COLUMNS="200")

    assert Path(where).is_relative_to(place)
    assert list((tmp_path / "results").glob("*.json"))
    assert name in board
