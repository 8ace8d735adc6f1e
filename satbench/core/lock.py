"""Locks between processes: refuse, try or wait; a process that dies lets go of its lock."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from satbench.core.errors import SatbenchError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What the system answers where a file system has no locks, as some network file systems do."""


@contextmanager
def lock_or_refuse(path: Path, busy: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` within; make it, with its folder, where it is missing.

    With `wait`, another process that holds it is waited for.  Where a file system has no locks, a
    marker file next to `path` is the lock, and nobody waits: the marker names its process, and the
    next one takes it over where that process is dead.  Raises SatbenchError with the sentence
    `busy` where another process holds the lock, and for a folder that cannot be written to.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with lock_or_refuse(Path(folder) / "lock", "another process is at it"):
    ...         print("only this process is here")
    only this process is here
    """
    with _held(path, wait) as held:
        if not held:
            marker = _marker(path)
            more = f"; if no process is at it, remove {marker}" if marker.exists() else ""
            raise SatbenchError(busy + more)
        yield


def try_lock(path: Path) -> AbstractContextManager[bool]:
    """Yield whether this process holds the lock file `path` within; see `lock_or_refuse`."""
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
    """Return the lock, held; None where another process holds it."""
    from filelock import FileLock, SoftFileLock, Timeout

    lock: BaseFileLock = FileLock(path, blocking=wait, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            # Not `path` itself: what a lock of the other kind left there would look held for ever.
            lock = SoftFileLock(_marker(path), blocking=False)
            lock.acquire()
    except Timeout:
        return None
    except OSError as error:
        raise SatbenchError(
            f"expected a folder to write to, got {str(path.parent)!r}: {error.strerror}"
        ) from None
    return lock


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")
