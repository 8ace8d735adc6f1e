"""The post of a Ray engine: an actor on the driver's node through which workers exchange files.

Workers that do not see the driver's folder of results send the files of a run here, fetch those of
other workers and claim units.  All files are kept in that folder, so a dead process loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satbench.core.errors import SatbenchError
from satbench.core.files import make_folder, write_bytes
from satbench.engine.claims import Claims, ConcludedElsewhere, Member, take_claim

SILENT = 30.0
"""Seconds without a heartbeat after which a worker counts as dead."""


@dataclass(frozen=True)
class Seen:
    """What the post knows about its workers: how many live, on which nodes, and their errors."""

    workers: int
    nodes: tuple[str, ...]
    faults: tuple[str, ...]


class Post:
    """Files of runs in the folder `out`, claims, and heartbeats.  It has no other state.

    So Ray may restart it at any time: the files are there, and workers send heartbeats again.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._signs: dict[str, tuple[float, str]] = {}
        self._faults: list[str] = []
        self._runs: set[Path] = set()

    def names(self, folder: str, ending: str) -> list[str]:
        """Return the names of the files in a folder of `out` with this ending, sorted."""
        return sorted(path.name for path in self._at(folder).glob(f"*{ending}"))

    def read(self, file: str) -> bytes | None:
        """Return the bytes of a file; None if it no longer exists."""
        with suppress(OSError):
            return self._at(file).read_bytes()
        return None

    def write(self, file: str, data: bytes) -> None:
        """Write a file atomically, unless its run is over."""
        path = self._at(file)
        if self._is_open(path):
            write_bytes(path, data)

    def take(self, file: str, owner: str) -> bool | None:
        """Claim a unit for `owner`; return whether they got it, None if the run is over."""
        path = self._at(file)
        if not self._is_open(path):
            return None
        path.parent.mkdir(exist_ok=True)
        return take_claim(path, owner)

    def renew(self, file: str) -> None:
        """Record a heartbeat for a claim."""
        Claims(self.out).renew(self._at(file))

    def drop(self, file: str) -> None:
        """Release a claim."""
        Claims(self.out).drop(self._at(file))

    def sign(self, worker: str, node: str) -> None:
        """Record a heartbeat of a worker."""
        self._signs[worker] = (time.monotonic(), node)

    def leave(self, worker: str, fault: str = "") -> None:
        """Record that a worker has ended, and why, if it had not finished its tasks."""
        self._signs.pop(worker, None)
        if fault and fault not in self._faults:
            self._faults.append(fault)

    def seen(self) -> Seen:
        """Return what is known about the workers."""
        now = time.monotonic()
        nodes = [node for last, node in self._signs.values() if now - last < SILENT]
        return Seen(len(nodes), tuple(sorted(set(nodes))), tuple(self._faults))

    def _at(self, name: str) -> Path:
        path = (self.out / name).resolve()
        if not path.is_relative_to(self.out.resolve()):
            raise SatbenchError(f"expected a file inside {self.out}, got {name!r}")
        return path

    def _is_open(self, path: Path) -> bool:
        """Return whether the run of a file, `out/.runs/IDENTITY`, is still open; make its folder.

        If the folder existed and is gone, the record of the run has been written.
        """
        out = self.out.resolve()
        run = out.joinpath(*path.relative_to(out).parts[:2])
        if run in self._runs:
            return run.is_dir()
        self._runs.add(run)
        make_folder(run)
        return True


Asking = Callable[..., Any]
"""Calls a method of the post, which is in another process, and returns the result."""


class InCrew(Member):
    """A worker that sees the driver's folder; the driver writes the record."""

    concludes = False


class ThroughPost(InCrew):
    """A worker that does not see the driver's folder; its own `out` mirrors it."""

    def __init__(self, out: Path, ask: Asking) -> None:
        self.out, self.ask = out, ask

    def claims(self, folder: Path) -> Claims:
        """Return the claims, which the post keeps."""
        return _PostedClaims(folder, self.out, self.ask)

    def fetch(self, folder: Path) -> None:
        """Fetch the units of a run that others have written."""
        self._bring(folder, ".npz", {path.name for path in folder.glob("*.npz")})

    def fetch_records(self) -> None:
        """Fetch the existing records, so that finished runs are not started again."""
        self._bring(self.out, ".json", {path.name for path in self.out.glob("*.json")})

    def send(self, path: Path) -> None:
        """Send a unit to the post."""
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
    """Claims that the post keeps as files."""

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
    """The driver: it does no units while workers do them, and takes over their results."""

    def __init__(self, workers_live: Callable[[], bool]) -> None:
        self._workers_live = workers_live

    def claims(self, folder: Path) -> Claims:
        """Return claims that the driver does not get while workers live."""
        return _Idle(folder, self._workers_live)


class _Idle(Claims):
    def __init__(self, folder: Path, workers_live: Callable[[], bool]) -> None:
        super().__init__(folder)
        self._workers_live = workers_live

    def take(self, path: Path, owner: str) -> bool:
        return not self._workers_live() and super().take(path, owner)

    def holder(self, name: str) -> str:
        return ""  # the driver always waits, so it need not say for whom
