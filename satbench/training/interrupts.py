"""Delay of Ctrl-C to the end of a step, because half a step cannot be saved or resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def uninterrupted(patient: bool) -> Iterator[None]:
    """Delay a Ctrl-C to the end of the block, and raise KeyboardInterrupt there.

    A second one takes effect at once, unless `patient`: a process that torchrun started may get
    the signal twice.  Does nothing outside the main thread, which gets no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = 0

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked > 1 and not patient:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
