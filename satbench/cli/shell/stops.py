"""Signals that stop a command: SIGTERM and SIGHUP act like Ctrl-C."""

from __future__ import annotations

import signal
import threading


class Stops:
    """A context in which SIGTERM and SIGHUP stop a command; `number` is the signal received.

    A command that handles Ctrl-C itself handles them in the same way; training, for example,
    finishes its step first.  They also stop a command in which Ctrl-C is ignored.  A shell starts
    jobs in the background in that way, and so does `nohup`.
    """

    def __init__(self) -> None:
        self.number = int(signal.SIGINT)
        self._changed: list[int] = []

    def __enter__(self) -> Stops:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)  # SIGHUP is not on every system
                if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                    signal.signal(number, self._stop)
                    self._changed.append(number)
        return self

    def __exit__(self, *error: object) -> None:
        for number in self._changed:
            signal.signal(number, signal.SIG_DFL)

    def _stop(self, number: int, frame: object) -> None:
        self.number = number
        if not callable(signal.getsignal(signal.SIGINT)):
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)
