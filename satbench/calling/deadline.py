"""A time limit for a user's code, because a model may never answer."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch import Tensor

from satbench.calling.logits import Late, ModelError


class TimeLimitError(ModelError):
    """A model or an attack exceeded its time limit; `x` is the image that it hung on."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeLimitError if the block takes longer than `seconds`; None is no limit.

    Finding the image that the model hangs on takes up to `seconds` per image.  Code is interrupted
    at its next line of Python; in the main thread of a POSIX system also while it sleeps or waits
    for a lock.  A single call of compiled code is never interrupted.
    """
    if seconds is None:
        yield
        return
    try:
        with _alarm(seconds):
            yield
    except Late as late:
        raise TimeLimitError(
            f"expected a batch to take at most {seconds:g} seconds (timeout), it takes longer: "
            "raise the timeout, lower the batch size, or fix the code that hangs",
            _blamed(late, seconds),
        ) from None


def _blamed(late: Late, seconds: float) -> Tensor | None:
    """Return the first image that a model hangs on by itself, or all images of the call."""
    if late.x is None or late.again is None:
        return None
    for one in torch.split(late.x.detach(), 1):
        try:
            with _alarm(seconds):
                late.again(one)
        except Late:
            return one
    return late.x.detach()


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    main = threading.current_thread() is threading.main_thread()
    with _by_signal(seconds) if main and hasattr(signal, "setitimer") else _by_thread(seconds):
        yield


@contextmanager
def _by_signal(seconds: float) -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:  # an alarm set by other code, which now goes off later
            signal.setitimer(signal.ITIMER_REAL, left, interval)


@contextmanager
def _by_thread(seconds: float) -> Iterator[None]:
    thread, over = threading.get_ident(), threading.Lock()

    def interrupt() -> None:
        with over:
            if not done:
                _raise_in(thread, Late)

    done: list[bool] = []
    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with over:
            done.append(True)
        timer.cancel()


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """Raise `error` in another thread, at its next line of Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
