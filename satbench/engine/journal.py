"""The store of unfinished runs: each finished batch is a file, whole or absent."""

from __future__ import annotations

import glob
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np

from satbench.core.errors import SatbenchError
from satbench.core.files import atomic_path, file_stem, write_text
from satbench.core.lock import lock_or_refuse, try_lock
from satbench.core.schema import convert, parse_object, read_text
from satbench.engine.claims import Claims, ConcludedElsewhere, Member, member_of
from satbench.engine.runner import BatchResult
from satbench.engine.searched import Kind
from satbench.records.record import ModelInfo, read_record

_MODEL = "model.json"
"""Beside the batches: what model they are of."""

_START = 12
"""Letters of a model's name that the names of its records begin with, even where they are cut."""


class RunStore:
    """The journal of one run, in a folder named after the run's identity."""

    def __init__(self, out: Path, identity: str) -> None:
        self.folder = out / ".runs" / identity[:16]
        self._seen: set[str] = set()
        self._member: Member | None = None

    def within(self, name: str) -> RunStore:
        """Return the journal of a part of this run, in a folder within its own."""
        part = RunStore(self.folder, name)
        part.folder = self.folder / name
        part.folder.mkdir(exist_ok=True)
        part._member = self._member
        return part

    @contextmanager
    def claimed(self, shared: bool | Member = False) -> Iterator[None]:
        """Hold the run: no other process may work on it meanwhile, but those that share it.

        Raises SatbenchError if one does.  A process that dies lets go by dying.
        """
        self._member = member_of(shared)
        if self._member and not self._member.leads:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
            return
        doing = f"is at this very evaluation ({self.folder})"
        advice = "wait for it, or give --out another folder"
        with lock_or_refuse(self.folder / "lock", doing, advice):
            yield

    @contextmanager
    def concluding(
        self, shared: bool | Member, say: Callable[[str], None] | None = None
    ) -> Iterator[None]:
        """Hold the end of a shared run, whose units are all done: one process at a time.

        `say` is told which process is waited for.  Raises ConcludedElsewhere in a process that is
        to leave the record to another.
        """
        member = member_of(shared)
        if member is None or member.leads:
            yield
            return
        if not member.concludes:
            member.claims(self.folder).sweep()
            raise ConcludedElsewhere("by another process")
        doing = f"concludes this very evaluation ({self.folder})"
        with lock_or_refuse(self.folder / "lock", doing, wait=True, say=say):
            yield

    def sharing(self, shared: bool | Member) -> Claims | None:
        """Return the claims of this process where others share the run."""
        member = member_of(shared)
        return member.claims(self.folder) if member else None

    def begin(self, model: ModelInfo, fresh: bool) -> None:
        """Note what is evaluated; a `fresh` run goes on from nothing but a fresh one that stopped.

        The run must be claimed.
        """
        mark = self.folder / "fresh"
        if fresh and not mark.exists():
            for batch in self.folder.rglob("*.npz"):
                batch.unlink()
            mark.touch()
        write_text(self.folder / _MODEL, json.dumps(asdict(model)))

    def agreed(self, name: str, value: int) -> int:
        """Return the number that whoever came first to the run gave for `name`: this, else `value`.

        A stopped run, and other processes at it, keep to what was begun with.
        """
        path = self.folder / name
        with suppress(FileExistsError), path.open("x") as file:
            file.write(str(value))
        told = path.read_text().strip()
        return int(told) if told.isdecimal() and int(told) else value

    def finished(self) -> Iterator[BatchResult]:
        """Return the batches written so far; a file that cannot be read is run again."""
        self._seen.clear()
        return self.news()

    def news(self) -> Iterator[BatchResult]:
        """Return the batches that others have written since the last look."""
        if self._member:
            self._member.fetch(self.folder)
        for path in sorted(self.folder.glob("*.npz")):
            if path.name in self._seen:
                continue
            self._seen.add(path.name)
            if (result := _read(path)) is not None:
                yield result

    def write(self, result: BatchResult) -> None:
        """Write one batch down, whole or not at all."""
        first = f"{int(result.indices[0]):09d}" if len(result.indices) else "prepared"
        name = f"{result.stage:03d}-{first}.npz"
        with atomic_path(self.folder / name) as temporary, temporary.open("wb") as file:
            np.savez(file, **vars(result))
        self._seen.add(name)
        if self._member:
            self._member.send(self.folder / name)

    def remove(self) -> None:
        """Remove the run: its record has been written."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._leave()

    def sweep(self) -> None:
        """Remove what is left of a run whose record was found: a process was killed at its end."""
        if not self.folder.is_dir():
            self._leave()
            return
        with suppress(SatbenchError), try_lock(self.folder / "lock") as mine:
            if mine:
                self.remove()

    def _leave(self) -> None:
        with suppress(OSError):  # other runs are in it
            self.folder.parent.rmdir()


def _read(path: Path) -> BatchResult | None:
    """Return the batch in a file; None where it cannot be read, and the file is gone then."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return BatchResult(
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
                search=cast(Kind, str(stored["search"])),
            )
    except MemoryError:  # the file is whole
        raise
    except Exception:  # every kind of error comes from a zip with a flipped byte
        path.unlink(missing_ok=True)
        return None


def known_models(out: Path, name: str) -> Iterator[ModelInfo]:
    """Return the models called `name` that the records and unfinished runs of a folder are of."""
    start = glob.escape(file_stem([name])[:_START])
    for path in sorted(out.glob(f"{start}*.json")):
        with suppress(SatbenchError):  # a curve, or somebody else's file
            yield read_record(path).model
    for path in sorted((out / ".runs").glob(f"*/{_MODEL}")):
        with suppress(SatbenchError):
            values = parse_object(read_text(path, "model"), "model", str(path))
            yield convert(values, ModelInfo, "model", str(path))
