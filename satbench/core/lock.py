"""Locks between processes: refuse, try or wait; a process that dies releases its lock."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from satbench.core.errors import SatbenchError
from satbench.core.files import TRIES, make_folder
from satbench.core.text.terminal import one_line, tell

if TYPE_CHECKING:
    from filelock import BaseFileLock

_UNKNOWN = "another process"
_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Error codes for a file system without locks, such as some network file systems."""


@contextmanager
def lock_or_refuse(
    path: Path,
    doing: str,
    advice: str = "wait for it",
    *,
    wait: bool = False,
    say: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold the lock file `path` in the block; create it, with its folder, if it is missing.

    `doing` says what a process that holds it does, such as `is running this training`.  With
    `wait`, this process waits for it, and `say` gets a message with its number, by default a line
    on stderr.  On a file system without locks, a marker file next to `path` is the lock, and nobody
    waits: the marker names its process, and the next process takes it over if that one is dead.
    Raises SatbenchError, with the number of the process and the `advice`, if another process holds
    the lock, and if the folder cannot be written to.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with lock_or_refuse(Path(folder) / "lock", "is at it"):
    ...         print("only this process is here")
    only this process is here
    """
    with _held(path, wait=False) as held:
        if held:
            yield
            return
    if wait and not _marker(path).exists():
        (say or _tell_on_stderr)(f"waiting for {holder_of(path)}, which {doing}")
        with _held(path, wait=True) as held:
            if held:
                yield
                return
    marker = _marker(path)
    more = f"; if that process is not running, remove {marker}" if marker.exists() else ""
    raise SatbenchError(f"{holder_of(path)} {doing}; {advice}{more}")


def holder_of(path: Path) -> str:
    """Return the process that holds a lock file, `process 4711`, `process 4711 on node7`.

    It is `another process` if that is not known.
    """
    marker = _marker(path)
    try:
        pid, host, *_ = [*(marker if marker.exists() else path).read_text().split(), "", ""]
    except (OSError, UnicodeDecodeError):
        return _UNKNOWN
    if not pid.isdecimal():
        return _UNKNOWN
    return f"process {pid}" + ("" if host == socket.gethostname() else f" on {one_line(host)}")


def try_lock(path: Path) -> AbstractContextManager[bool]:
    """Yield whether this process holds the lock file `path` in the block; see `lock_or_refuse`."""
    return _held(path, wait=False)


@contextmanager
def _held(path: Path, wait: bool) -> Iterator[bool]:
    lock = _acquired(path, wait)
    try:
        yield lock is not None
    finally:
        if lock:
            lock.release()


def _acquired(path: Path, wait: bool) -> BaseFileLock | None:
    """Return the acquired lock; None if another process holds it."""
    from filelock import FileLock, SoftFileLock, Timeout

    lock: BaseFileLock = FileLock(path, blocking=wait, fallback_to_soft=False)
    try:
        try:
            _acquire_in_folder(lock, path.parent)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            # Not `path` itself: a file from a lock of the other kind would look like a held lock
            # for ever.
            lock = SoftFileLock(_marker(path), blocking=False)
            lock.acquire()
        else:
            with suppress(OSError):  # for a process that finds the lock
                path.write_text(f"{os.getpid()} {socket.gethostname()}\n")
    except Timeout:
        return None
    except OSError as error:
        raise SatbenchError(
            f"expected a folder to write to, got {str(path.parent)!r}: {error.strerror}"
        ) from None
    return lock


def _acquire_in_folder(lock: BaseFileLock, folder: Path) -> None:
    """Acquire a lock; make its folder as often as another process, which ends a run, removes it."""
    for _ in range(TRIES):
        make_folder(folder)
        with suppress(FileNotFoundError):
            lock.acquire()
            return
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


def _tell_on_stderr(text: str) -> None:
    tell(f"satbench: {text}", err=True)


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")
