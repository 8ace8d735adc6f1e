"""Out of memory: how it is known, and how work goes on with fewer images at once."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from satbench.core.errors import SatbenchError
from satbench.core.heap import release_freed_memory

_SIGNS = (
    "out of memory",
    "can't allocate memory",  # torch's allocator on the CPU
    "not enough memory",
    "cudnn_status_alloc_failed",
    "cublas_status_alloc_failed",
    "unable to allocate",  # NumPy's
    "could not create a primitive",  # oneDNN's, of convolutions on the CPU
    "could not execute a primitive",
)

T = TypeVar("T")


class NoRoomError(SatbenchError):
    """A device has no room for as few images as can be asked about at once."""

    def __init__(self, what: str, said: str) -> None:
        super().__init__(
            f"the device has no memory left for {what} ({said}): give --checkpointing "
            "(checkpointing=True), which keeps fewer activations for the gradient, or a device "
            "with more memory"
        )


def is_out_of_memory(error: BaseException | None) -> bool:
    """Say whether an error, or one that it was raised from, is a device without room.

    >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    True
    >>> is_out_of_memory(RuntimeError("expected 3 channels"))
    False
    """
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS):
            return True
        error = error.__cause__
    return False


@contextmanager
def room_left(lack: list[str]) -> Iterator[None]:
    """Take in that a device has no room: `lack` gets what was said, and what was held is let go.

    Any other error passes.
    """
    try:
        yield
    except Exception as error:  # a user's code may make any error of it
        if not is_out_of_memory(error):
            raise
        lack.append(_first_line(error))
        traceback.clear_frames(error.__traceback__)  # they hold the tensors
    if lack:
        let_go()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def let_go() -> None:
    """Give back what nobody holds any more: to the device, and to the system."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    release_freed_memory()


def with_fewer(images: int, work: Callable[[int], T], what: str) -> T:
    """Return what `work` gives for as many images at once as there is room for, `images` at most.

    It is called with the number, and with half as many each time that there is no room.  Raises
    NoRoomError, naming `what`, where there is none for one.

    >>> def work(images):
    ...     if images > 10:
    ...         raise MemoryError
    ...     return images
    >>> with_fewer(32, work, "a search")
    8
    """
    while True:
        lack: list[str] = []
        with room_left(lack):
            return work(images)
        if images == 1:
            raise NoRoomError(f"1 image {what}", lack[-1])
        images = -(-images // 2)
