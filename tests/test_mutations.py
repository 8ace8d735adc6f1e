"""Faults that must turn everyday tests red: each is put into a copy, and the tests are run there.

A fault here is one that would make a model look robust, or a record look proven.  A test that is
made cheaper, or left out of the everyday tests, must not let one pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTENT = ("attacks", "model_zoo", "leaderboard", "docs", "examples", "README.md", "pyproject.toml")


@dataclass(frozen=True)
class Fault:
    """`old` in a file of satbench becomes `new`; everyday tests of `where` are run, of `names`."""

    what: str
    file: str
    old: str
    new: str
    where: str
    names: str = ""


FAULTS = (
    Fault(
        "Auto-PGD halves no step where the best loss is stuck",
        "attacks/gradient/apgd_run.py",
        "stuck = ~self.halved & (self.checked_loss >= rows.best_loss)",
        "stuck = torch.zeros_like(self.halved)",
        "tests/oracle",
        "test_apgd_reference",
    ),
    Fault(
        "Square halves its squares after 250 queries, not 200",
        "attacks/score/square.py",
        "(10, 50, 200, 500,",
        "(10, 50, 250, 500,",
        "tests/oracle",
        "test_fab_square",
    ),
    Fault(
        "PGD descends",
        "attacks/gradient/pgd.py",
        "x_adv + step * steepest",
        "x_adv - step * steepest",
        "tests/contract",
        "test_strengths",
    ),
    Fault(
        "a fast copy is searched without a proof",
        "engine/proof.py",
        "if not len(x) or not (row < 2 or key not in self.proven):",
        "if True:",
        "tests/engine",
        "test_searched or test_random_models",
    ),
    Fault(
        "a fast copy proves its logits and not its gradient",
        "engine/proof.py",
        "        if alike:\n            self.proven",
        "        if True:\n            self.proven",
        "tests/engine",
        "test_searched",
    ),
    Fault(
        "logits that are NaN are taken for an answer",
        "engine/judge.py",
        "    if bool(bad.any()):",
        "    if False:",
        "tests/engine",
        "test_judge or test_engine",
    ),
    Fault(
        "adversarial pixels that are NaN are allowed",
        "engine/judge.py",
        "if not bool(x_adv.isfinite().all()):",
        "if False:",
        "tests/engine",
        "test_judge",
    ),
    Fault(
        "a search goes on without gradients where they are off around it",
        "engine/contract.py",
        "with torch.enable_grad():",
        "if True:",
        "tests/contract",
        "test_attacks",
    ),
    Fault(
        "the ball is measured with a hundred times the tolerance",
        "engine/judge.py",
        "threat.radius + TOLERANCE[threat.norm]",
        "threat.radius + 100 * TOLERANCE[threat.norm]",
        "tests/engine",
        "test_judge",
    ),
    Fault(
        "the ball of a projection is one percent too small",
        "engine/ball.py",
        "delta.clamp(-threat.radius, threat.radius)",
        "delta.clamp(-0.99 * threat.radius, 0.99 * threat.radius)",
        "tests/oracle",
        "test_pgd_linear",
    ),
    Fault(
        "noise depends on the place in the batch",
        "core/noise.py",
        "- 1 for i in self.indices\n",
        "- 1 for i in range(len(self.indices))\n",
        "tests/core",
        "test_noise",
    ),
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of code and tests, with the content of this checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("satbench", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in CONTENT:
        (folder / name).symlink_to(ROOT / name)
    return folder


def run_everyday_tests(checkout: Path, where: str, names: str) -> subprocess.CompletedProcess[str]:
    words = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", where]
    return subprocess.run(
        [sys.executable, *words, *(["-k", names] if names else [])],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_turns_everyday_tests_red(fault: Fault, checkout: Path) -> None:
    path = checkout / "satbench" / fault.file
    sound = path.read_text(encoding="utf-8")
    assert sound.count(fault.old) == 1
    path.write_text(sound.replace(fault.old, fault.new), encoding="utf-8")
    try:
        done = run_everyday_tests(checkout, fault.where, fault.names)
    finally:
        path.write_text(sound, encoding="utf-8")

    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(("where", "names"), sorted({(one.where, one.names) for one in FAULTS}))
def test_without_a_fault_they_are_green(where: str, names: str, checkout: Path) -> None:
    done = run_everyday_tests(checkout, where, names)

    assert done.returncode == 0, done.stdout[-2000:]
