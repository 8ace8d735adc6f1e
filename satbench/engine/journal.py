"""The journal of unfinished runs: each finished batch is a file, written atomically."""

from __future__ import annotations

import glob
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from satbench.core.errors import SatbenchError
from satbench.core.files import atomic_path, file_stem, make_folder, write_text
from satbench.core.lock import lock_or_refuse, try_lock
from satbench.core.schema import convert, parse_object, read_text
from satbench.engine.claims import Claims, ConcludedElsewhere, Member, member_of
from satbench.engine.runner import BatchResult
from satbench.engine.searched import Kind
from satbench.records.record import ModelInfo, read_record
from satbench.records.stored_arrays import read_arrays

_MODEL = "model.json"
"""The file next to the batches that says which model they are of."""

_SUITES = "suites.json"
"""The file next to the batches with the digests of the suites that they are of."""

_START = 12
"""How many letters of a model's name the names of its records have, even if they are cut."""

_MOST_STAGES, _MOST_PASSES, _MOST_SECONDS = 10**6, 10**15, 1e9
"""Of a batch: far above those of any, and sums of them stay within 64 bits."""


class RunStore:
    """The journal of one run, in a folder named after the run's identity.

    `shape` is that of the images of the run, (N, C, H, W).
    """

    def __init__(self, out: Path, identity: str, shape: tuple[int, ...]) -> None:
        self.folder, self._shape = out / ".runs" / identity[:16], shape
        self._seen: set[str] = set()
        self._member: Member | None = None

    def within(self, name: str) -> RunStore:
        """Return the journal of a part of this run, in a subfolder."""
        part = RunStore(self.folder, name, self._shape)
        part.folder = self.folder / name
        with self._there():
            part.folder.mkdir(exist_ok=True)
        part._member = self._member
        return part

    @contextmanager
    def claimed(self, shared: bool | Member = False) -> Iterator[None]:
        """Lock the run for the block: only processes that share it may work on it.

        Raises SatbenchError if another one does.  The lock of a dead process ends with it.
        """
        self._member = member_of(shared)
        if self._member and not self._member.leads:
            make_folder(self.folder)
            yield
            return
        doing = f"is running the same evaluation ({self.folder})"
        advice = "wait for it, or give --out another folder"
        with lock_or_refuse(self.folder / "lock", doing, advice):
            yield

    @contextmanager
    def concluding(
        self, shared: bool | Member, say: Callable[[str], None] | None = None
    ) -> Iterator[None]:
        """Lock the end of a shared run, whose units are all done, for one process at a time.

        `say` is called with a text about the process that this one waits for.  Raises
        ConcludedElsewhere in a process that must leave the record to another.
        """
        member = member_of(shared)
        if member is None or member.leads:
            yield
            return
        if not member.concludes:
            member.claims(self.folder).sweep()
            raise ConcludedElsewhere("by another process")
        doing = f"is writing the record of the same evaluation ({self.folder})"
        with lock_or_refuse(self.folder / "lock", doing, wait=True, say=say):
            yield

    def sharing(self, shared: bool | Member) -> Claims | None:
        """Return the claims of this process; None if the run is not shared."""
        member = member_of(shared)
        return member.claims(self.folder) if member else None

    def begin(self, model: ModelInfo, fresh: bool, suites: Mapping[str, str] | None = None) -> None:
        """Write down what is evaluated; a `fresh` run continues only a stopped fresh run.

        `suites` are the digests of its suites, by name: units that were made with other parts of a
        suite are removed.  The run must be claimed.
        """
        mark, parts = self.folder / "fresh", self.folder / _SUITES
        told = json.dumps(dict(sorted((suites or {}).items())))
        with self._there():
            is_other = parts.exists() and parts.read_text(encoding="utf-8") != told
            if is_other or (fresh and not mark.exists()):
                for batch in self.folder.rglob("*.npz"):
                    batch.unlink()
            if fresh:
                mark.touch()
            write_text(parts, told)
            write_text(self.folder / _MODEL, json.dumps(asdict(model)))

    def agreed(self, name: str, value: int) -> int:
        """Return the value of `name` that the first process of the run chose; it may be `value`.

        A resumed run and the other processes of a run must use the same value.
        """
        path = self.folder / name
        with self._there():
            with suppress(FileExistsError), path.open("x") as file:
                file.write(str(value))
            text = path.read_text().strip()
        return int(text) if text.isdecimal() and int(text) else value

    def finished(self) -> Iterator[BatchResult]:
        """Return the batches written so far; a batch whose file cannot be read runs again."""
        self._seen.clear()
        return self.news()

    def news(self) -> Iterator[BatchResult]:
        """Return the batches that others have written since the last call."""
        if self._member:
            self._member.fetch(self.folder)
        for path in sorted(self.folder.glob("*.npz")):
            if path.name in self._seen:
                continue
            self._seen.add(path.name)
            if (result := self._read(path)) is not None:
                yield result

    def write(self, result: BatchResult) -> None:
        """Write one batch atomically."""
        first = f"{int(result.indices[0]):09d}" if len(result.indices) else "prepared"
        name = f"{result.stage:03d}-{first}.npz"
        with (
            self._there(),
            atomic_path(self.folder / name) as temporary,
            temporary.open("wb") as file,
        ):
            np.savez(file, **vars(result))
        self._seen.add(name)
        if self._member:
            self._member.send(self.folder / name)

    def keep(self, name: str, **arrays: Any) -> None:
        """Write what belongs together down, whole or not at all, in a run that has no batches."""
        path = self.folder / f"{name}.npz"
        with self._there(), atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)

    def kept(self, name: str) -> dict[str, Any] | None:
        """Return what was kept; None where there is nothing that can be read."""
        path = self.folder / f"{name}.npz"
        try:
            return read_arrays(path)
        except (MemoryError, FileNotFoundError) as error:
            if isinstance(error, MemoryError):  # the file is whole
                raise
            return None
        except Exception:  # every kind of error comes from a zip with a flipped byte
            path.unlink(missing_ok=True)
            return None

    def remove(self) -> None:
        """Remove the run: its record has been written."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._leave()

    def sweep(self) -> None:
        """Remove the rest of a run whose record exists: a process was killed at its end."""
        if not self.folder.is_dir():
            self._leave()
            return
        with suppress(SatbenchError), try_lock(self.folder / "lock") as mine:
            if mine:
                self.remove()

    def _read(self, path: Path) -> BatchResult | None:
        """Return the batch in a file; if it is not one of this run, remove the file."""
        try:
            return _read_batch(path, self._shape)
        except MemoryError:  # the file is complete
            raise
        except Exception:  # a zip file with a flipped byte can raise any error
            path.unlink(missing_ok=True)
            return None

    @contextmanager
    def _there(self) -> Iterator[None]:
        """Raise ConcludedElsewhere if another process of a shared run removes its folder."""
        try:
            yield
        except FileNotFoundError:
            if self._member and not self._member.leads:
                raise ConcludedElsewhere from None
            raise

    def _leave(self) -> None:
        with suppress(OSError):  # there are other runs in it
            self.folder.parent.rmdir()


def known_models(out: Path, name: str) -> Iterator[ModelInfo]:
    """Return the models called `name` in the records and unfinished runs of a folder."""
    start = glob.escape(file_stem([name])[:_START])
    for path in sorted(out.glob(f"{start}*.json")):
        with suppress(SatbenchError):  # a curve, or somebody else's file
            yield read_record(path).model
    for path in sorted((out / ".runs").glob(f"*/{_MODEL}")):
        with suppress(SatbenchError):
            values = parse_object(read_text(path, "model"), "model", str(path))
            yield convert(values, ModelInfo, "model", str(path))


def _read_batch(path: Path, shape: tuple[int, ...]) -> BatchResult:
    """Read the batch of a run on images of `shape`, (N, C, H, W).

    Raises ValueError, or another error, for a batch that no run can have written.
    """
    stored = read_arrays(path)
    result = BatchResult(
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
    if not (_are_whole(result, shape[0]) and _are_images(result, shape[1:]) and _are_costs(result)):
        raise ValueError("it is not a batch of this run")
    return result


def _are_whole(result: BatchResult, n: int) -> bool:
    """Return whether places and verdicts go together."""
    indices, broken = result.indices, result.broken
    return (
        _are_of((indices, np.int64), (broken, np.bool_))
        and indices.ndim == 1
        and indices.shape == broken.shape
        and len(np.unique(indices)) == len(indices)
        and (not len(indices) or 0 <= indices.min() <= indices.max() < n)
        and 0 <= result.stage < _MOST_STAGES
        and result.search in get_args(Kind)
    )


def _are_images(result: BatchResult, shape: tuple[int, ...]) -> bool:
    """Return whether there are as many witnesses, margins and points as a batch can have."""
    broken = int(result.broken.sum())
    some = len(result.margins)
    return (
        _are_of((result.witnesses, np.float32), (result.points, np.float32))
        and result.witnesses.shape in ((0,), (0, *shape), (broken, *shape))
        and result.points.shape in ((0,), (len(result.broken) - broken, *shape))
        and any(_are_of((result.margins, kind)) for kind in (np.float32, np.float64))
        and result.margins.shape in ((0,), (broken,), result.broken.shape)
        and not np.isnan(result.margins).any()
        and (not len(result.points) or some == len(result.broken))
    )


def _are_of(*pairs: tuple[NDArray[Any], type[np.generic]]) -> bool:
    return all(array.dtype == np.dtype(kind) for array, kind in pairs)


def _are_costs(result: BatchResult) -> bool:
    passes = (
        *(result.forwards, result.backwards),
        *(result.source_forwards, result.source_backwards),
    )
    return (
        all(0 <= one < _MOST_PASSES for one in passes)
        and isfinite(result.seconds)
        and 0 <= result.seconds < _MOST_SECONDS
    )
