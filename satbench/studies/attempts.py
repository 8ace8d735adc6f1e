"""Runs that failed, known to all workers of one command: none is tried again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from satbench.core.errors import SatbenchError

ALLOWED = 2
"""How often a run is begun: once more after a worker died over it, for that may be the worker's."""


@dataclass(frozen=True)
class Attempts:
    """A file a run in `folder`, with a letter for each attempt that has not come to its end.

    Only who holds the claim of a run touches its file.  `say` is told what failed.
    """

    folder: Path
    say: Callable[[str], None]

    def spent(self, key: str) -> bool:
        """Whether a run failed, or was begun too often."""
        path = self.folder / key
        return path.is_file() and path.stat().st_size >= ALLOWED

    @contextmanager
    def made(self, key: str, label: str) -> Iterator[None]:
        """Note an attempt.  A SatbenchError is said and ends here; the run is not tried again."""
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
