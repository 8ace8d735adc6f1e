"""Give freed memory back to the system."""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from functools import cache

_EVERY = 1.0  # seconds: giving back, and taking anew, costs some milliseconds


@dataclass
class _Last:
    """When memory was last given back, in seconds of the process's clock."""

    at: float = 0.0


_last = _Last()


def release_freed_memory() -> None:
    """Hand the pages that the C library keeps for later back to the system, where it can (glibc).

    Batches from which images leave have ever other sizes; the holes that they leave in the heap
    would otherwise be kept, and a long run would grow.  Within a second of the last time nothing is
    done.
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
