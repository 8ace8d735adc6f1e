"""One process at a time: a lock that a process lets go of by dying."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from satbench.core.errors import SatbenchError

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextmanager
def alone(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file `path` within, which is made with its folder where it is missing.

    Raises SatbenchError with the sentence `busy` where another process holds it.  On a system
    or a file system without such locks nothing is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if not _lock(file.fileno()):
            raise SatbenchError(busy)
        yield


def _lock(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD
    return True
