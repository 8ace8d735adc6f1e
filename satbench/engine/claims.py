"""Claims: which of several processes at one run does which unit.

A claim only saves work.  Units are written whole and give the same result whoever does them, so two
processes that do one unit do no harm.  A `Member` says how a process is at runs of several.
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
"""Seconds without a sign of life after which a claim of another machine may be taken over."""

_BEAT = 10.0


_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


class Claims:
    """The claims of one process, as files in the folder of a run that all processes see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._me = this_process()

    @contextmanager
    def held(self, name: str) -> Iterator[bool]:
        """Try to claim a unit; yield whether it is ours until the end of the block."""
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
        """Claim the file `path` for `owner`; say whether it is theirs now."""
        return take_claim(path, owner)

    def holder(self, name: str) -> str:
        """Return who has claimed a unit, `process 4711 on node7`; empty for nobody."""
        try:
            host, _, pid = (self.folder / f"{name}.claim").read_text().rpartition(" ")
        except OSError:  # it was let go of just now
            return ""
        return f"process {pid}" + ("" if host == socket.gethostname() else f" on {host}")

    def renew(self, path: Path) -> None:
        """Give a sign of life."""
        with suppress(OSError):
            os.utime(path)

    def drop(self, path: Path) -> None:
        """Let a claim go."""
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
    """Return the machine and the number of this process, as claims name their owner."""
    return f"{socket.gethostname()} {os.getpid()}"


def take_claim(path: Path, owner: str) -> bool:
    """Make the file `path` for `owner`, or take it over from one who is gone; say whether it was.

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
    except OSError:  # it was let go of just now
        return True
    if host == socket.gethostname() and pid.isdecimal():
        return not is_alive(int(pid))
    return age > STALE


class Member:
    """How a process is at runs that others are at too: a run's folder is seen by all of them.

    A process that `leads` holds the run against others, but for those that it has called itself,
    and writes its record.  One that does not conclude leaves the record to another.
    """

    leads = False
    concludes = True

    def claims(self, folder: Path) -> Claims:
        """Return the claims of this process in the folder of a run."""
        return Claims(folder)

    def stages(self, suite: Sequence[Stage]) -> Sequence[Stage]:
        """Return the stages that this process is at, the first of the suite or all."""
        return suite

    def spans(self, suite: Sequence[Stage], n: int) -> Iterable[slice]:
        """Return which of the `n` images this process is at, part after part."""
        return [slice(None)]

    def fetch(self, folder: Path) -> None:
        """Bring in what others have written for the run in `folder`; here it is there already."""

    def send(self, path: Path) -> None:
        """Hand on a file of a run that this process has written; here it is there already."""


class Leading(Member):
    """A process that has called others to help it."""

    leads = True


class ConcludedElsewhere(Exception):  # noqa: N818 - no error: the work of this process is done
    """All units of a run are done, and another process writes the record, or has written it."""


def found_if_concluded(run: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """Make a function that runs what others may be at call itself again when they concluded it.

    Then it finds what they have written.  In a process that does not conclude, it ends there.
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
    """Return how a process is at a `shared` run; None where it is there on its own."""
    if isinstance(shared, Member):
        return shared
    return Member() if shared else None
