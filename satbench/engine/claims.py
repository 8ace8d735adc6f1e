"""Claims: which of several processes at one run does which unit.

A claim only saves work.  Units are written whole and give the same result whoever does them, so two
processes that do one unit do no harm.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from satbench.core.files import is_alive

STALE = 60.0
"""Seconds without a sign of life after which a claim of another machine may be taken over."""

_BEAT = 10.0


class Claims:
    """The claims of one process, as files in the folder of a run that all processes see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._me = f"{socket.gethostname()} {os.getpid()}"

    @contextmanager
    def held(self, name: str) -> Iterator[bool]:
        """Try to claim a unit; yield whether it is ours until the end of the block."""
        path = self.folder / f"{name}.claim"
        if not self._take(path):
            yield False
            return
        over = threading.Event()
        beat = threading.Thread(target=_keep_alive, args=(path, over), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            over.set()
            with suppress(OSError):
                path.unlink()

    def _take(self, path: Path) -> bool:
        for _ in range(2):
            try:
                with path.open("x") as file:
                    file.write(self._me)
                return True
            except FileExistsError:
                if not self._is_left(path):
                    return False
                with suppress(OSError):
                    path.unlink()
        return False

    def _is_left(self, path: Path) -> bool:
        """Return whether the process that holds a claim is gone."""
        try:
            host, _, pid = path.read_text().rpartition(" ")
            age = time.time() - path.stat().st_mtime
        except OSError:  # it was let go of just now
            return True
        if host == socket.gethostname() and pid.isdecimal():
            return not is_alive(int(pid))
        return age > STALE


def _keep_alive(path: Path, over: threading.Event) -> None:
    while not over.wait(_BEAT):
        with suppress(OSError):
            os.utime(path)
