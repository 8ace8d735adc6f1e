"""A time limit on code of a user's, whose model may never answer."""

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
    """A model, or an attack on it, took longer than it may; `x` is the image that it hung on."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeLimitError once the block has taken `seconds`; None is no limit.

    The image that a model hangs on is looked for, which takes as long again.  Code is interrupted
    where it next runs a line of Python; in the main thread of a POSIX system also while it sleeps
    or waits for a lock.  One call of compiled code is never interrupted.
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
            "give it more time, a smaller batch size, or mend what hangs",
            _blamed(late, seconds),
        ) from None


def _blamed(late: Late, seconds: float) -> Tensor | None:
    """Return the first image that a model hangs on alone, or all that it was asked about."""
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
        if left:  # somebody else's alarm, which goes off later than it would have
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
    """Raise `error` in another thread, where it next runs a line of Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
