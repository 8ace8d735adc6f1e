"""Locks: between real processes, with and without locks of the file system."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from satbench.core.errors import SatbenchError
from satbench.core.lock import lock_or_refuse, try_lock

HOLDER = """
import errno, sys
from pathlib import Path
from satbench.core.lock import lock_or_refuse
if sys.argv[2] != "flock":
    import fcntl
    def unable(*_):
        raise OSError(int(sys.argv[2]), "no locks")
    fcntl.flock = unable
with lock_or_refuse(Path(sys.argv[1]), "is at it"):
    print("held", flush=True)
    sys.stdin.readline()
"""
SYSTEMS = ["flock", str(errno.ENOLCK), str(errno.ENOSYS), str(errno.EOPNOTSUPP)]


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system with locks, or one that answers with an error number."""
    name = str(request.param)
    if name != "flock":

        def unable(handle: int, kind: int) -> None:
            raise OSError(int(name), "no locks")

        monkeypatch.setattr("fcntl.flock", unable)
    return name


@contextmanager
def holder(path: Path, system: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock until it gets a line on stdin."""
    command = [sys.executable, "-c", HOLDER, str(path), system]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_until_the_first_lets_go(system: str, tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    with holder(path, system) as other:
        with try_lock(path) as held:
            assert not held
        with pytest.raises(SatbenchError) as told, lock_or_refuse(path, "is at it", "wait"):
            raise AssertionError
        other.communicate("go\n")
        with try_lock(path) as held:
            assert held

    marker = path.with_name("lock.held")
    more = "" if system == "flock" else f"; if that process is not running, remove {marker}"
    assert str(told.value) == f"process {other.pid} is at it; wait" + more
    assert not marker.exists()


def test_a_killed_process_leaves_no_lock(system: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path, system) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()

    with lock_or_refuse(path, "is at it"), try_lock(path) as held:
        assert not held


def test_a_process_that_waits_is_served_when_the_other_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    order: list[str] = []
    with holder(path, "flock") as other:

        def let_go() -> None:
            order.append("first")
            other.communicate("go\n")

        timer = threading.Timer(0.1, let_go)
        timer.start()
        with lock_or_refuse(path, "is at it", wait=True, say=order.append):
            order.append("second")
        timer.join()

    assert order == [f"waiting for process {other.pid}, which is at it", "first", "second"]


def test_without_locks_of_the_file_system_nobody_waits_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", unable)
    path = tmp_path / "lock"
    with (
        holder(path, str(errno.ENOLCK)),
        pytest.raises(SatbenchError),
        lock_or_refuse(path, "is at it", wait=True),
    ):
        raise AssertionError


def test_a_lock_whose_file_is_removed_lets_one_other_in(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    with holder(path, "flock") as other:
        os.unlink(path)
        with lock_or_refuse(path, "is at it"), try_lock(path) as held:
            assert not held
        other.communicate("go\n")

    with try_lock(path) as held:
        assert held


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(SatbenchError, match=r"^expected a folder to write to, got "):
        lock_or_refuse(tmp_path / "file" / "lock", "is at it").__enter__()


@pytest.mark.parametrize("removed", [1, 2, 5])
def test_a_folder_that_another_process_removes_is_made_again(
    removed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that ends its run removes `.runs`, if nothing is in it."""
    runs, left, mkdir = tmp_path / ".runs", [removed], os.mkdir

    def make_while_another_removes(path: str, *rest: int) -> None:
        mkdir(path, *rest)
        if Path(path) == runs and left[0]:
            left[0] -= 1
            os.rmdir(path)

    monkeypatch.setattr(os, "mkdir", make_while_another_removes)
    with lock_or_refuse(runs / "mine" / "lock", "is at it"):
        assert left == [0]
        assert (runs / "mine" / "lock").is_file()


def test_a_lock_is_taken_if_another_process_removes_its_folder_just_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, left, open_file = tmp_path / ".runs" / "mine" / "lock", [2], os.open

    def open_after_another_removes(name: str, *rest: int, **more: int) -> int:
        if Path(name) == path and left[0]:
            left[0] -= 1
            os.rmdir(path.parent)
        return open_file(name, *rest, **more)

    monkeypatch.setattr(os, "open", open_after_another_removes)
    with lock_or_refuse(path, "is at it"):
        assert left == [0]
        assert path.is_file()
