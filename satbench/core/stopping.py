"""Worker processes stop when the command that started them ends."""

from __future__ import annotations

import os
import signal
import sys
import threading


def stop_at_the_end_of_stdin() -> None:
    """Stop this worker process as after a Ctrl-C when its stdin ends, from another thread.

    A Ctrl-C stops it even if the command that started it ignores Ctrl-C, as a job in the background
    does: only the command sends one to its workers.
    """
    if not callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through the buffer: its lock would hang at the exit
    os.kill(os.getpid(), signal.SIGINT)
