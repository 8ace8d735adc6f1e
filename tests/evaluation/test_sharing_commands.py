"""`--workers`: several processes share the work and write the same record as one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.evaluation import workers

RELU, SILU = "fmnist-sat-tiny-relu-s0", "fmnist-sat-tiny-silu-s0"


def run(*words: str | Path) -> list[str]:
    done = CliRunner().invoke(cli, [*map(str, words), "--quiet"], standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.stdout.splitlines()


def results(folder: Path) -> dict[str, Any]:
    """Return the written records without place and time."""
    told = {}
    for path in folder.rglob("*.json"):
        told[path.name] = json.loads(path.read_text())
        told[path.name].pop("environment")
    return told


def test_two_processes_write_the_same_record_as_one(tmp_path: Path) -> None:
    words = ["eval", "--model", RELU, "--attack", "pgd-2"]
    words += ["--attack", "square(queries=5)", "--n-examples", "20", "--batch-size", "5"]
    run(*words, "--out", tmp_path / "one")
    said = run(*words, "--out", tmp_path / "two", "--workers", "2")

    assert results(tmp_path / "one") == results(tmp_path / "two")
    assert len(results(tmp_path / "two")) == 1
    assert sum(line.startswith("wrote ") for line in said) == 1
    assert sorted(path.suffix for path in (tmp_path / "two").iterdir()) == [".json", ".npz"]


@pytest.mark.slow
@pytest.mark.parametrize("count", ["2", "3"])
@pytest.mark.parametrize(
    "words",
    [
        ["eval", "--model", SILU, "--attack", "fast", "--attack", "autoattack"],
        ["eval", "--model", SILU, "--attack", "fast", "--attack", "a3(rounds=5)"],
        ["eval", "--model", SILU, "--attack", "pgd-5", "--until-interval", "20%"],
        ["curve", "--model", RELU, "--model", SILU, "--attack", "foolbox.fmn(steps=5)"],
        ["transfer", "--source", RELU, "--target", SILU, "--target", RELU],
    ],
    ids=["eval", "gate", "until", "curve", "transfer"],
)
def test_every_command_writes_the_same_with_several_processes(
    words: list[str], count: str, tmp_path: Path
) -> None:
    more = [] if "--until-interval" in words else ["--n-examples", "40", "--batch-size", "8"]
    run(*words, *more, "--out", tmp_path / "one")
    run(*words, *more, "--out", tmp_path / "two", "--workers", count)

    assert results(tmp_path / "one") == results(tmp_path / "two")


@pytest.mark.slow
def test_default_helpers_do_not_change_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["eval", RELU, SILU, "--attack", "square(queries=400)", "--limit", "80"]
    words += ["--batch-size", "10"]
    run(*words, "--out", tmp_path / "one", "--workers", "1")
    started: list[int] = []
    start = workers._start

    def noted(tasks: Any, places: list[int]) -> subprocess.Popen[bytes]:
        started.append(len(places))
        return start(tasks, places)

    monkeypatch.setattr(workers, "_start", noted)
    monkeypatch.setattr(workers, "LATE", 0.5)
    monkeypatch.setattr(workers, "cores", lambda: [0, 1])
    run(*words, "--out", tmp_path / "auto", "--workers", "auto")

    assert started == [1]
    assert results(tmp_path / "one") == results(tmp_path / "auto")


@pytest.mark.slow
def test_a_killed_helper_does_not_change_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["eval", "--model", SILU, "--attack", "autoattack", "--n-examples", "100"]
    words += ["--batch-size", "10"]
    run(*words, "--out", tmp_path / "one")
    started: list[subprocess.Popen[bytes]] = []
    start = workers._start

    def noted(*arguments: Any) -> subprocess.Popen[bytes]:
        started.append(start(*arguments))
        return started[-1]

    monkeypatch.setattr(workers, "_start", noted)
    code = "import os, sys, time; time.sleep(8); os.kill(int(sys.argv[1]), 9)"
    killers: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(
        workers,
        "_start",
        lambda *a: (
            helper := noted(*a),
            killers.append(subprocess.Popen([sys.executable, "-c", code, str(helper.pid)])),
        )[0],
    )
    run(*words, "--out", tmp_path / "two", "--workers", "2")
    killers[0].wait()

    assert started[0].returncode in (-signal.SIGKILL, 130, 0)
    assert results(tmp_path / "one") == results(tmp_path / "two")


@pytest.mark.slow
def test_helpers_end_with_their_parent_process(tmp_path: Path) -> None:
    words = ["eval", "--model", SILU, "--attack", "autoattack", "--n-examples", "500"]
    command = [sys.executable, "-m", "satbench", *words, "--workers", "2", "--out", str(tmp_path)]
    parent = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".runs/*/*.claim")) and time.monotonic() < deadline:
        time.sleep(0.2)
    helpers = _children(parent.pid)
    parent.kill()
    parent.wait()
    while any(_alive(pid) for pid in helpers) and time.monotonic() < deadline + 30:
        time.sleep(0.2)

    assert len(helpers) == 1
    assert [pid for pid in helpers if _alive(pid)] == []


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]


@pytest.mark.parametrize("more", [("--workers", "0"), ("--workers", "2", "--again")])
def test_invalid_workers_are_refused(more: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match="--workers"):
        run("eval", "--model", SILU, "--attack", "pgd-2", "--out", tmp_path, *more)
    assert list(tmp_path.iterdir()) == []
