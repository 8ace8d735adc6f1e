"""The store of unfinished runs: each finished batch is a file, whole or absent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from satbench.attacks.engine import BatchResult
from satbench.core.errors import SatbenchError
from satbench.core.files import atomic_path


class RunStore:
    """The journal of one run, in a folder named after the run's identity."""

    def __init__(self, out: Path, identity: str) -> None:
        self.folder = out / ".runs" / identity[:16]

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the run: no other process may work on it meanwhile.

        Raises SatbenchError if one does.  A process that dies lets go by dying.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            if not try_lock(lock.fileno()):
                raise SatbenchError(
                    f"another process is at this very evaluation ({self.folder}); "
                    "wait for it, or give --out another folder"
                )
            yield

    def finished(self) -> Iterator[BatchResult]:
        """Return the batches written so far; a file that cannot be read is run again."""
        for path in sorted(self.folder.glob("*.npz")):
            try:
                with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                    yield BatchResult(
                        stage=int(stored["stage"]),
                        indices=stored["indices"],
                        broken=stored["broken"],
                        witnesses=stored["witnesses"],
                        forwards=int(stored["forwards"]),
                        backwards=int(stored["backwards"]),
                        seconds=float(stored["seconds"]),
                        source_forwards=int(stored["source_forwards"]),
                        source_backwards=int(stored["source_backwards"]),
                        margins=stored["margins"],
                        points=stored["points"],
                    )
            except Exception:  # every kind of error comes from a zip with a flipped byte
                path.unlink()

    def write(self, result: BatchResult) -> None:
        """Write one batch down, whole or not at all."""
        first = f"{int(result.indices[0]):09d}" if len(result.indices) else "prepared"
        name = f"{result.stage:03d}-{first}.npz"
        with atomic_path(self.folder / name) as temporary, temporary.open("wb") as file:
            np.savez(file, **vars(result))

    def remove(self) -> None:
        """Remove the run: its record has been written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def try_lock(handle: int) -> bool:
    """Lock an open file for this process alone; return whether it could."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: two processes would only do the same work twice
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
