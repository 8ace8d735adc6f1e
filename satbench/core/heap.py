"""Return freed memory to the system."""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from functools import cache

_EVERY = 1.0  # seconds, because returning memory and allocating it again costs milliseconds


@dataclass
class _Last:
    """When memory was last returned, in seconds of the process's clock."""

    at: float = 0.0


_last = _Last()


def release_freed_memory() -> None:
    """Return the free pages that the C library keeps to the system, if it can (glibc).

    The size of a batch changes when images leave it.  Without this, the holes in the heap would
    remain, and a long run would grow.  Nothing is done within a second of the last time.
    """
    now, trim = time.monotonic(), _malloc_trim()
    if trim is not None and now - _last.at >= _EVERY:
        trim(0)
        _last.at = now


@cache
def _malloc_trim() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return None
