"""Claims: which of several processes that share a run does which unit.

A claim only saves work.  Units are written atomically and have the same result in every process, so
two processes that do the same unit do no harm.  A `Member` describes the part of one process.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from satbench.core.files import is_alive

if TYPE_CHECKING:
    from satbench.engine.stage import Stage

STALE = 60.0
"""Seconds without a heartbeat after which a claim of another machine may be taken over."""

_BEAT = 10.0


_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


class Claims:
    """The claims of one process, as files in the folder of a run, which all processes see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._me = this_process()

    @contextmanager
    def held(self, name: str) -> Iterator[bool]:
        """Try to claim a unit for the block; yield whether this process got it."""
        path = self.folder / f"{name}.claim"
        if not self.take(path, self._me):
            yield False
            return
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(path, over), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            over.set()
            self.drop(path)

    def take(self, path: Path, owner: str) -> bool:
        """Claim the file `path` for `owner`; return whether they got it."""
        return take_claim(path, owner)

    def holder(self, name: str) -> str:
        """Return who has claimed a unit, `process 4711 on node7`; empty if nobody has."""
        try:
            host, _, pid = (self.folder / f"{name}.claim").read_text().rpartition(" ")
        except OSError:  # it was released just now
            return ""
        return f"process {pid}" + ("" if host == socket.gethostname() else f" on {host}")

    def renew(self, path: Path) -> None:
        """Write a heartbeat."""
        with suppress(OSError):
            os.utime(path)

    def drop(self, path: Path) -> None:
        """Release a claim."""
        with suppress(OSError):
            path.unlink()

    def sweep(self) -> None:
        """Remove the claims of processes that are gone."""
        for path in self.folder.rglob("*.claim"):
            if _is_left(path):
                self.drop(path)

    def _beat(self, path: Path, over: threading.Event) -> None:
        while not over.wait(_BEAT):
            self.renew(path)


def this_process() -> str:
    """Return the machine and number of this process: the owner's name in a claim."""
    return f"{socket.gethostname()} {os.getpid()}"


def take_claim(path: Path, owner: str) -> bool:
    """Make the file `path` for `owner`, or take it over from a dead process; return if it worked.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     unit = Path(folder) / "001-000000000.claim"
    ...     take_claim(unit, this_process()), take_claim(unit, "another 1")
    (True, False)
    """
    for _ in range(2):
        try:
            with path.open("x") as file:
                file.write(owner)
            return True
        except FileNotFoundError:
            raise ConcludedElsewhere from None  # the run is over, and its folder gone
        except FileExistsError:
            if not _is_left(path):
                return False
            with suppress(OSError):
                path.unlink()
    return False


def _is_left(path: Path) -> bool:
    """Return whether the process that holds a claim is gone."""
    try:
        host, _, pid = path.read_text().rpartition(" ")
        age = time.time() - path.stat().st_mtime
    except OSError:  # it was released just now
        return True
    if host == socket.gethostname() and pid.isdecimal():
        return not is_alive(int(pid))
    return age > STALE


class Member:
    """The part of a process in a shared run.  Here all processes see the run's folder.

    A process that `leads` locks the run against all processes that it has not started itself, and
    writes its record.  One that does not conclude leaves the record to another process.
    """

    leads = False
    concludes = True

    def claims(self, folder: Path) -> Claims:
        """Return the claims of this process in the folder of a run."""
        return Claims(folder)

    def stages(self, suite: Sequence[Stage]) -> Sequence[Stage]:
        """Return the stages that this process does: the first of the suite, or all."""
        return suite

    def spans(self, suite: Sequence[Stage], n: int) -> Iterable[slice]:
        """Return which of the `n` images this process does, part by part."""
        return [slice(None)]

    def fetch(self, folder: Path) -> None:
        """Fetch what others have written for the run in `folder`; here it is already there."""

    def send(self, path: Path) -> None:
        """Send a file that this process has written to the others; here they already see it."""


class Leading(Member):
    """A process that has started others to help it."""

    leads = True


class ConcludedElsewhere(Exception):  # noqa: N818 - not an error: the work of this process is done
    """All units of a run are done, and another process writes or has written the record."""


def found_if_concluded(run: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """Decorate a function that does a shared run: call it again when another process concluded it.

    The second call finds the record.  In a process that does not conclude, the exception passes.
    """

    @wraps(run)
    def found(*arguments: _Given.args, **named: _Given.kwargs) -> _Made:
        try:
            return run(*arguments, **named)
        except ConcludedElsewhere as over:
            if over.args:
                raise
            return run(*arguments, **named)

    return found


def member_of(shared: bool | Member) -> Member | None:
    """Return the part of this process in a `shared` run; None if the run is not shared."""
    if isinstance(shared, Member):
        return shared
    return Member() if shared else None
