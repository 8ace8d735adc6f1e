"""Ctrl-C waits for the end of a step: half a step can be neither saved nor gone on from."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def step_in_one_piece(patient: bool) -> Iterator[None]:
    """Let a Ctrl-C within take effect at the end, as the KeyboardInterrupt that it is.

    A second one takes effect at once, unless `patient`: processes that torchrun started may be
    told twice.  Does nothing outside the main thread, where no signal arrives.
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
