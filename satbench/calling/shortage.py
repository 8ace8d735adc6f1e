"""Out-of-memory errors: recognising them, and retrying with fewer images at once."""

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
    """A device has no memory for even the smallest batch."""

    def __init__(self, what: str, said: str) -> None:
        super().__init__(
            f"the device has no memory left for {what} ({said}): give --checkpointing "
            "(checkpointing=True), which keeps fewer activations for the gradient, or use a device "
            "with more memory"
        )


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or an error that it was raised from, is an out-of-memory error.

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
def catch_out_of_memory(messages: list[str]) -> Iterator[None]:
    """Catch an out-of-memory error: add its message to `messages`, and free what was held.

    Any other error passes.
    """
    try:
        yield
    except Exception as error:  # a user's code may turn it into any error
        if not is_out_of_memory(error):
            raise
        messages.append(_first_line(error))
        traceback.clear_frames(error.__traceback__)  # the frames hold the tensors
    if messages:
        free_memory()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def free_memory() -> None:
    """Return unused memory to the device and to the operating system."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    release_freed_memory()


def with_fewer(images: int, work: Callable[[int], T], what: str) -> T:
    """Return `work(images)`, with fewer images if the device has no memory for so many.

    The number is halved after each out-of-memory error.  Raises NoRoomError, which names `what`, if
    there is no memory for one image.

    >>> def work(images):
    ...     if images > 10:
    ...         raise MemoryError
    ...     return images
    >>> with_fewer(32, work, "a search")
    8
    """
    while True:
        messages: list[str] = []
        with catch_out_of_memory(messages):
            return work(images)
        if images == 1:
            raise NoRoomError(f"1 image {what}", messages[-1])
        images = -(-images // 2)
