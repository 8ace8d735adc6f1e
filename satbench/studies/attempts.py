"""Failed runs, shared by all workers of a command, so that none is tried forever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from satbench.core.errors import SatbenchError

ALLOWED = 2
"""How often a run is started: once more after a worker died, which may be the worker's fault."""


@dataclass(frozen=True)
class Attempts:
    """A file per run in `folder`, with a letter for each attempt that has not finished.

    Only the process that holds the claim of a run writes its file.  `say` reports failures.
    """

    folder: Path
    say: Callable[[str], None]

    def spent(self, key: str) -> bool:
        """Whether a run failed, or was started too often."""
        path = self.folder / key
        return path.is_file() and path.stat().st_size >= ALLOWED

    @contextmanager
    def made(self, key: str, label: str) -> Iterator[None]:
        """Record an attempt.  A SatbenchError is reported and ends here, and the run has failed."""
        path = self.folder / key
        with path.open("a", encoding="ascii") as file:
            file.write("x")
        try:
            yield
        except SatbenchError as error:
            path.write_text("x" * ALLOWED, encoding="ascii")
            self.say(f"{label} failed: {error}")
        else:
            path.unlink()
