"""Whatever is killed wherever, the next command of that kind leaves no trace of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from satbench.cli.shell.failures import STOPPED
from satbench.core.files import atomic_path, sweep, write_text

KILLS = Path(__file__).with_name("kill_points.py")


def examine(*words: str, out: Path) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, str(KILLS), *words, "--json", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "SHOW": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told: list[dict[str, object]] = json.loads(out.read_text())
    return told


def test_a_killed_evaluation_leaves_nothing_behind_the_next(tmp_path: Path) -> None:
    (told,) = examine("eval", "--sample", "2", out=tmp_path / "told.json")

    assert told["kills"] == 2
    assert told["faults"] == []


@pytest.mark.slow
def test_no_kill_at_any_file_operation_leaves_anything(tmp_path: Path) -> None:
    told = examine(out=tmp_path / "told.json")

    assert {one["command"]: one["faults"] for one in told} == {
        name: [] for name in ("eval", "challenge", "merge", "curve", "transfer", "export", "train")
    }
    assert all(one["kills"] == one["operations"] for one in told)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_command_cleanly_and_tells_how_to_go_on(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    words = ["eval", "--model", "fmnist-sat-tiny-relu-s0", "--attack", "autoattack", "--quiet"]
    command = [sys.executable, "-m", "satbench", *words, "--batch-size", "20", "--out", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/.runs/*/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    if number == signal.SIGINT:  # and again, while it is about to end
        time.sleep(0.01)
        process.send_signal(number)
    said = process.communicate(timeout=60)[1]

    assert process.returncode == code
    assert said == f"satbench: {STOPPED}\n"
    assert not list(tmp_path.rglob("*.part"))


def test_what_a_dead_writer_left_is_removed_by_the_next_and_a_live_one_stays(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.json"
    with atomic_path(path) as temporary:
        mine = temporary.name
        dead = tmp_path / mine.replace(f"_{os.getpid()}-", f"_{2**22 + 1}-")
        dead.touch()
        sweep(path)
        left = [one.name for one in tmp_path.iterdir()]
        temporary.write_text("{}")

    assert left == [mine]
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(("age", "stays"), [(0, True), (7200, False)])
def test_what_a_writer_of_another_machine_left_is_removed_when_it_is_old(
    age: int, stays: bool, tmp_path: Path
) -> None:
    foreign = tmp_path / ".a.json.00000000_1-abc.part"
    foreign.touch()
    os.utime(foreign, (time.time() - age,) * 2)

    write_text(tmp_path / "a.json", socket.gethostname())

    assert foreign.exists() is stays
