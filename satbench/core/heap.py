"""Give freed memory back to the system."""

from __future__ import annotations

import ctypes
from functools import cache


def release_freed_memory() -> None:
    """Hand the pages that the C library keeps for later back to the system, where it can (glibc).

    Batches from which images leave have ever other sizes; the holes that they leave in the heap
    would otherwise be kept, and a long run would grow.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return None
