"""The post of a Ray engine: what its workers and the driver tell each other, on the driver's node.

Workers that do not see the driver's folder of results bring the files of a run here, fetch those of
others and claim units; all files lie in that folder, so that nothing is lost with a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satbench.core.errors import SatbenchError
from satbench.core.files import write_bytes
from satbench.engine.claims import Claims, ConcludedElsewhere, Member, take_claim

SILENT = 30.0
"""Seconds without a sign of life after which a worker counts as gone."""


@dataclass(frozen=True)
class Seen:
    """What the post knows of its workers: how many live, on which nodes, and what went wrong."""

    workers: int
    nodes: tuple[str, ...]
    faults: tuple[str, ...]


class Post:
    """Files of runs in the folder `out`, claims, and signs of life.  It keeps nothing but those.

    Ray may start it anew at any time: the files are there, and workers give signs of life again.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._signs: dict[str, tuple[float, str]] = {}
        self._faults: list[str] = []
        self._runs: set[Path] = set()

    def names(self, folder: str, ending: str) -> list[str]:
        """Return the names of the files in a folder of `out` that end so, sorted."""
        return sorted(path.name for path in self._at(folder).glob(f"*{ending}"))

    def read(self, file: str) -> bytes | None:
        """Return a file; None where it is no longer there."""
        with suppress(OSError):
            return self._at(file).read_bytes()
        return None

    def write(self, file: str, data: bytes) -> None:
        """Write a file, whole or not at all, unless its run is over."""
        path = self._at(file)
        if self._is_open(path):
            write_bytes(path, data)

    def take(self, file: str, owner: str) -> bool | None:
        """Claim a unit for `owner`, and say whether it is theirs; None where the run is over."""
        path = self._at(file)
        if not self._is_open(path):
            return None
        path.parent.mkdir(exist_ok=True)
        return take_claim(path, owner)

    def renew(self, file: str) -> None:
        """Take a sign of life for a claim."""
        Claims(self.out).renew(self._at(file))

    def drop(self, file: str) -> None:
        """Let a claim go."""
        Claims(self.out).drop(self._at(file))

    def sign(self, worker: str, node: str) -> None:
        """Take a sign of life of a worker."""
        self._signs[worker] = (time.monotonic(), node)

    def leave(self, worker: str, fault: str = "") -> None:
        """Take it that a worker has ended, and why, if it was not through with its tasks."""
        self._signs.pop(worker, None)
        if fault and fault not in self._faults:
            self._faults.append(fault)

    def seen(self) -> Seen:
        """Return what is known of the workers."""
        now = time.monotonic()
        nodes = [node for last, node in self._signs.values() if now - last < SILENT]
        return Seen(len(nodes), tuple(sorted(set(nodes))), tuple(self._faults))

    def _at(self, name: str) -> Path:
        path = (self.out / name).resolve()
        if not path.is_relative_to(self.out.resolve()):
            raise SatbenchError(f"expected a file within {self.out}, got {name!r}")
        return path

    def _is_open(self, path: Path) -> bool:
        """Return whether the run of a file, `out/.runs/IDENTITY`, is not over; make its folder.

        A folder that was there and is gone is that of a run whose record has been written.
        """
        out = self.out.resolve()
        run = out.joinpath(*path.relative_to(out).parts[:2])
        if run in self._runs:
            return run.is_dir()
        self._runs.add(run)
        run.mkdir(parents=True, exist_ok=True)
        return True


Asking = Callable[..., Any]
"""Calls a method of the post by its name, in another process, and returns its answer."""


class InCrew(Member):
    """A worker that sees the driver's folder; the driver concludes."""

    concludes = False


class ThroughPost(InCrew):
    """A worker that does not see the driver's folder: its own `out` mirrors that."""

    def __init__(self, out: Path, ask: Asking) -> None:
        self.out, self.ask = out, ask

    def claims(self, folder: Path) -> Claims:
        """Return claims that the post keeps."""
        return _PostedClaims(folder, self.out, self.ask)

    def fetch(self, folder: Path) -> None:
        """Bring the units that others have written for a run."""
        self._bring(folder, ".npz", {path.name for path in folder.glob("*.npz")})

    def fetch_records(self) -> None:
        """Bring the records that are there, so that finished runs are not begun anew."""
        self._bring(self.out, ".json", {path.name for path in self.out.glob("*.json")})

    def send(self, path: Path) -> None:
        """Hand a unit to the post."""
        self.ask("write", self._name(path), path.read_bytes())

    def _bring(self, folder: Path, ending: str, here: Collection[str]) -> None:
        for name in self.ask("names", self._name(folder), ending):
            if name in here:
                continue
            data = self.ask("read", f"{self._name(folder)}/{name}")
            if data is not None:
                write_bytes(folder / name, data)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.out).as_posix()


class _PostedClaims(Claims):
    """Claims whose files lie with the post."""

    def __init__(self, folder: Path, out: Path, ask: Asking) -> None:
        super().__init__(folder)
        self._out, self._ask = out, ask

    def take(self, path: Path, owner: str) -> bool:
        taken = self._ask("take", self._name(path), owner)
        if taken is None:
            raise ConcludedElsewhere("by the driver")
        return bool(taken)

    def renew(self, path: Path) -> None:
        self._ask("renew", self._name(path))

    def drop(self, path: Path) -> None:
        self._ask("drop", self._name(path))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._out).as_posix()


class Watching(Member):
    """The driver: it does no unit while workers are at them, and takes in theirs."""

    def __init__(self, workers_live: Callable[[], bool]) -> None:
        self._workers_live = workers_live

    def claims(self, folder: Path) -> Claims:
        """Return claims that are not made while workers live."""
        return _Idle(folder, self._workers_live)


class _Idle(Claims):
    def __init__(self, folder: Path, workers_live: Callable[[], bool]) -> None:
        super().__init__(folder)
        self._workers_live = workers_live

    def take(self, path: Path, owner: str) -> bool:
        return not self._workers_live() and super().take(path, owner)

    def holder(self, name: str) -> str:
        return ""  # the driver always waits: nobody needs to know for whom
