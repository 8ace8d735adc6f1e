"""Checkpoints of a training run: finite, atomic, with a checksum, in two generations.

A checkpoint is a file of torch.save, followed by a line with the SHA-256 of everything before it,
which torch.load ignores.  Reading it runs no code from it.  The older generation is the end of an
epoch, as soon as there is one.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from satbench.core.errors import SatbenchError
from satbench.core.files import atomic_path
from satbench.core.schema import check_plain, convert
from satbench.training.update.averaging import Average

STATE, BEFORE = "checkpoint.pt", "checkpoint.before.pt"

_SEAL = re.compile(rb"\nsha256 ([0-9a-f]{64})\n")
_SEAL_LENGTH = 73
_PIECE = 2**20


@dataclass(frozen=True)
class Checkpoint:
    """A position in a run: epochs done, steps done in this epoch, and the sums of its metrics.

    `history` has the metrics of the finished epochs, one dictionary each, and `checks` those of the
    checks within this one; `ended` says that it ends here, before its last step.  `best` lists the
    kept best weights, the best first.  `notes` are the notes on the run for the card; `stopped`
    says why the run ended before its last epoch, if it did.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    accuracy_sum: float = 0.0
    history: tuple[dict[str, Any], ...] = ()
    stopped: str = ""
    checks: tuple[dict[str, float], ...] = ()
    ended: bool = False
    best: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    def at(self, step: int, sums: Tensor) -> Checkpoint:
        """Return the position after `step` steps of the epoch, with sums of loss and accuracy."""
        loss, accuracy = sums.tolist()
        return replace(self, step=step, loss_sum=loss, accuracy_sum=accuracy)

    def noting(self, *notes: str) -> Checkpoint:
        """Return the same position with more notes, without duplicates."""
        return replace(self, notes=tuple(dict.fromkeys((*self.notes, *filter(None, notes)))))


class NotFiniteError(Exception):
    """The state to save has NaN or infinity; the message says where."""


class CorruptError(Exception):
    """A checkpoint cannot be read, or is not what was written."""


class Checkpoints:
    """The checkpoints of a run in its folder, and the objects that they save and restore."""

    def __init__(
        self,
        folder: Path,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: Average | None,
        scheduler: LRScheduler | None = None,
    ) -> None:
        self._newest, self._before = folder / STATE, folder / BEFORE
        self._network, self._optimiser, self._average = network, optimiser, average
        self._scheduler = scheduler
        self._newest_is: Literal["end of epoch", "within epoch", "unusable"] = "unusable"

    def load(self) -> Checkpoint:
        """Restore the run to where it stopped, if it had started.

        Learning rate, order, noise and augmentation are functions of the position, and torch's
        generator is seeded from it at every step, so the position determines them all.  If the
        newest generation is corrupt, the older one is used, and a note says so.  If it is missing,
        a kill came between the two renames of `save`, and there is no note.  Raises SatbenchError
        if neither can be used.
        """
        if not has_checkpoint(self._newest.parent):
            return Checkpoint()
        for path in (self._newest, self._before):
            try:
                place = self._put_back(read_checkpoint(path))
            except Exception:  # noqa: S112 (a broken file can raise any error)
                continue
            if path == self._newest:
                self._newest_is = "within epoch" if place.step else "end of epoch"
                return place
            if not self._newest.exists():
                return place
            return place.noting(f"{self._newest} was corrupt: went on from {path}, {where(place)}")
        raise SatbenchError(
            f"the checkpoint {self._newest} is corrupt; remove it to train from the start"
        )

    def save(self, place: Checkpoint) -> None:
        """Write the state of the run atomically, and keep an older generation.

        Raises NotFiniteError, and changes nothing, if the state has NaN or infinity; OSError if it
        cannot be written.
        """
        state: dict[str, Any] = {
            "model": self._network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "place": asdict(place),
            "sealed": True,
        }
        if self._average:
            state["average"] = self._average.state_dict()
        if self._scheduler:
            state["scheduler"] = self._scheduler.state_dict()
        check_finite(state)
        with atomic_path(self._newest) as temporary:
            with temporary.open("wb") as file:
                _write(state, file)
            self._rotate()
        self._newest_is = "within epoch" if place.step else "end of epoch"

    def _put_back(self, saved: dict[str, Any]) -> Checkpoint:
        place = _place(saved)
        self._network.load_state_dict(saved["model"])
        self._optimiser.load_state_dict(saved["optimiser"])
        if self._average:
            self._average.load_state_dict(saved["average"])
        if self._scheduler:
            self._scheduler.load_state_dict(saved["scheduler"])
        return place

    def _rotate(self) -> None:
        # The older generation is the end of an epoch; until there is one, the previous position.
        none_yet = self._newest_is == "within epoch" and not self._before.exists()
        if self._newest.exists() and (none_yet or self._newest_is == "end of epoch"):
            self._newest.replace(self._before)


def has_checkpoint(folder: Path) -> bool:
    """Return whether `folder` has a checkpoint of a run."""
    return any((folder / name).exists() for name in (STATE, BEFORE))


def check_finite(state: object) -> None:
    """Raise NotFiniteError, which names the first bad tensor, unless all are finite."""
    for name, tensor in _tensors(state, ()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NotFiniteError(".".join(name))


def last_good(folder: Path) -> tuple[Path, str] | None:
    """Return the checkpoint to restart from after a divergence, and its position in words.

    It is the last kept end of an epoch, else the newest checkpoint; None if there is none.
    """
    found: list[tuple[Path, Checkpoint]] = []
    for path in (folder / STATE, folder / BEFORE):
        try:
            found.append((path, _place(read_checkpoint(path))))
        except (CorruptError, OSError):
            continue
    found.sort(key=lambda one: one[1].step > 0)  # stable: on a tie the newest stays first
    return (found[0][0], where(found[0][1])) if found else None


def is_checkpoint(path: Path) -> bool:
    """Return whether a file is a checkpoint of a run, not just weights."""
    return _seal_of(path) is not None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint as data: `model`, `optimiser`, `place`, and `average` if there is one.

    Raises CorruptError unless it is exactly what was written; OSError if it is missing.
    """
    seal = _seal_of(path)
    if seal is not None and _digest(path) != seal:
        raise CorruptError("its SHA-256 is not the one it states")
    try:
        if seal is None:  # an old file without a checksum line: each file in the zip has a CRC
            with zipfile.ZipFile(path) as file:
                if file.testzip() is not None:
                    raise CorruptError("one of its CRCs is not the one it states")
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        whole = "place" in saved and bool(saved.get("sealed")) == (seal is not None)
    except (CorruptError, FileNotFoundError):
        raise
    except Exception as error:  # torch can raise any error here
        raise CorruptError(type(error).__name__) from None
    if not whole:
        raise CorruptError("it is not a complete checkpoint")
    return saved


def where(place: Checkpoint) -> str:
    """Return a position in words."""
    if place.step:
        return f"step {place.step} of epoch {place.epoch + 1}"
    return f"the end of epoch {place.epoch}"


def _place(saved: dict[str, Any]) -> Checkpoint:
    """Return the position in a checkpoint.  Raises CorruptError if it has another form."""
    try:
        check_plain(saved["place"], "place of a checkpoint", STATE)
        return convert(saved["place"], Checkpoint, "place of a checkpoint", STATE)
    except SatbenchError as error:
        raise CorruptError(str(error)) from None


def _tensors(state: object, name: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from _tensors(value, (*name, str(key)))


def _write(state: dict[str, Any], file: BinaryIO) -> None:
    sealed = _Sealed(file)
    try:
        torch.save(state, sealed)  # type: ignore[arg-type]  # torch only writes and flushes
    except Exception:
        if sealed.failed is not None:  # torch hides it behind its own error
            raise sealed.failed from None
        raise
    file.write(b"\nsha256 " + sealed.sha.hexdigest().encode() + b"\n")


class _Sealed:
    """A file that hashes its contents as they are written, and remembers why a write failed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sha = file, hashlib.sha256()
        self.failed: OSError | None = None

    def write(self, data: bytes) -> int:
        self.sha.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.failed = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _seal_of(path: Path) -> str | None:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _SEAL_LENGTH))
        found = _SEAL.fullmatch(file.read())
    return found[1].decode() if found else None


def _digest(path: Path) -> str:
    """Return the SHA-256 of everything before the checksum line."""
    sha, left = hashlib.sha256(), path.stat().st_size - _SEAL_LENGTH
    with path.open("rb") as file:
        while left > 0:
            piece = file.read(min(_PIECE, left))
            sha.update(piece)
            left -= len(piece)
    return sha.hexdigest()
