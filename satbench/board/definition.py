"""Boards as data: folders in `leaderboard/` with a `board.toml`, records and generated files.

A new board needs only a `board.toml`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from satbench.board.imported.rows import Imported, read_imported
from satbench.board.rows import COLUMNS, Column
from satbench.core.content import content_folder
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.core.schema import read_toml
from satbench.core.threat import Threat
from satbench.records.certificates import Certificate, read_certificate
from satbench.records.curves import Curve, read_curve
from satbench.records.record import DatasetInfo, Record, read_record, read_records
from satbench.records.transfers import TransferMatrix, read_matrix

FILE = "board.toml"
SCHEMA = 1

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class _BoardFile:
    """The contents of `board.toml`."""

    schema: int
    summary: str
    dataset: str
    split: str
    n: int
    threat: str
    suites: list[list[str]]
    columns: list[Column]
    on_request: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class BoardDefinition:
    """A board: its images, threat model, suites and columns.

    The first `n` images of `split` of `dataset` are attacked within `threat`.  Each of `suites`, a
    list of attacks in order, runs on every model; those `on_request` run only if they are named
    (`satbench leaderboard fill --suite`).  `columns` are shown, in this order.
    """

    folder: Path
    summary: str
    dataset: str
    split: str
    n: int
    threat: Threat
    suites: tuple[tuple[str, ...], ...]
    columns: tuple[Column, ...]
    on_request: tuple[tuple[str, ...], ...] = ()

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name

    @property
    def records(self) -> Path:
        """The folder of the records for the tables."""
        return self.folder / "records"

    @property
    def reference(self) -> Path:
        """The folder of the reference records; it need not exist."""
        return self.folder / "reference"

    @property
    def imported(self) -> Path:
        """The folder of rows that others published; it need not exist."""
        return self.folder / "imported"

    @property
    def is_filled(self) -> bool:
        """Whether there is a record."""
        return any(self.records.glob("*.json"))

    @property
    def witnesses(self) -> Path:
        """The folder of the witnesses of all records, by digest."""
        return self.folder / "witnesses"

    @property
    def rechecks(self) -> Path:
        """The folder of the recheck records, which give rows their marks; it need not exist."""
        return self.folder / "rechecks"

    @property
    def certificates(self) -> Path:
        """The folder of certificates (`satbench certify`), with their proofs; it need not exist."""
        return self.folder / "certificates"

    @property
    def curves(self) -> Path:
        """The folder of curves of its models (`satbench curve`); it need not exist."""
        return self.folder / "curves"

    @property
    def transfers(self) -> Path:
        """The folder of matrices of transfer attacks (`satbench transfer`); likewise."""
        return self.folder / "transfers"

    @property
    def superseded(self) -> Path:
        """The folder of withdrawn records, which are kept but are in no table."""
        return self.folder / "superseded"

    def read_records(self, left_out: list[str] | None = None) -> list[Record]:
        """Read the records of the board, ordered by file name.

        Raises SatbenchError, naming the file, for one with other images or another threat model; a
        list `left_out` works as for `satbench.records.record.read_records`.
        """
        return (
            read_records(self.records, left_out, self.read_record) if self.records.is_dir() else []
        )

    def read_references(self, left_out: list[str] | None = None) -> list[Record]:
        """Read the reference records, like `read_records`."""
        there = self.reference.is_dir()
        return read_records(self.reference, left_out, self.read_record) if there else []

    def read_imported(self, left_out: list[str] | None = None) -> list[Imported]:
        """Read the rows that others published, one publication per file, ordered by file name.

        Raises SatbenchError for a bad file; with a list `left_out`, the file is left out instead,
        and the list gets a sentence.
        """
        found = []
        for path in sorted((*self.imported.glob("*.toml"), *self.imported.glob("*.json"))):
            try:
                found.append(read_imported(path))
            except SatbenchError as error:
                if left_out is None:
                    raise
                left_out.append(str(error))
        return found

    def read_certificates(self, left_out: list[str] | None = None) -> list[Certificate]:
        """Read the certificates of the board, ordered by file name.

        Raises SatbenchError for a bad one, or one of other images or another threat model; with a
        list `left_out`, it is left out instead, and the list gets a sentence.
        """
        faults: list[str] = []
        found = list(
            self._beside(self.certificates, read_certificate, self._certificate_fault, faults)
        )
        if faults and left_out is None:
            raise SatbenchError(faults[0])
        if left_out is not None:
            left_out += faults
        return found

    def read_curves(self, left_out: list[str]) -> list[Curve]:
        """Read the curves of the board, ordered by file name.

        A bad one, or one of other images or another norm, is left out, and `left_out` gets a
        sentence.
        """
        return list(self._beside(self.curves, read_curve, self._curve_fault, left_out))

    def read_transfers(self, left_out: list[str]) -> list[TransferMatrix]:
        """Read the matrices of transfer attacks of the board; likewise."""
        return list(self._beside(self.transfers, read_matrix, self._matrix_fault, left_out))

    def _beside(
        self,
        folder: Path,
        read: Callable[[Path], _Read],
        fault_of: Callable[[_Read], str],
        left_out: list[str],
    ) -> Iterator[_Read]:
        for path in sorted(folder.glob("*.json")):
            try:
                found = read(path)
            except SatbenchError as error:
                left_out.append(str(error))
                continue
            if fault := fault_of(found):
                left_out.append(f"{path} does not belong to the board {self.name}: {fault}")
            else:
                yield found

    def _curve_fault(self, curve: Curve) -> str:
        return self._images_fault(curve.dataset) or (
            f"its norm is {curve.norm}" if curve.norm != self.threat.norm else ""
        )

    def _certificate_fault(self, told: Certificate) -> str:
        return self._images_fault(told.dataset) or (
            f"its threat model is {told.threat}" if told.threat != self.threat else ""
        )

    def _matrix_fault(self, matrix: TransferMatrix) -> str:
        threat = Threat.of(matrix.norm, matrix.eps)
        return self._images_fault(matrix.dataset) or (
            f"its threat model is {threat}" if threat != self.threat else ""
        )

    def _images_fault(self, data: DatasetInfo) -> str:
        same = (data.name, data.split, data.n) == (self.dataset, self.split, self.n)
        return "" if same else f"it has {data.n} {data.split} images of {data.name}"

    def read_record(self, path: Path) -> Record:
        """Read a record.  Raises SatbenchError for other images or another threat model."""
        record = read_record(path)
        data = record.dataset
        found = (data.name, data.split, data.n, Threat.of(record.norm, record.eps))
        if found != (self.dataset, self.split, self.n, self.threat):
            raise SatbenchError(
                f"expected a record of {self.n} {self.split} images of {self.dataset} within "
                f"{self.threat} on the board {self.name}, got {path} with {data.n} {data.split} "
                f"images of {data.name} within {found[-1]}; move it to the board it belongs to"
            )
        return record


def board_definitions() -> list[BoardDefinition]:
    """Return the boards that ship with satbench, by name.  Raises SatbenchError for a bad one."""
    files = sorted(content_folder("leaderboard").glob(f"*/{FILE}"))
    return [read_definition(path) for path in files]


def board_definition(name: str) -> BoardDefinition:
    """Return the board with a name.  Raises UnknownNameError with the nearest name."""
    found = {one.name: one for one in board_definitions()}
    if name not in found:
        raise UnknownNameError("board", name, found)
    return found[name]


def read_definition(path: Path) -> BoardDefinition:
    """Read a `board.toml`.  Raises SatbenchError naming file and field."""
    read = read_toml(path, "board", _BoardFile)
    faults = {
        f"schema: expected {SCHEMA}, got {read.schema}; update satbench": read.schema != SCHEMA,
        f"n: expected 1 or more, got {read.n}": read.n < 1,
        "suites: expected at least one list of attacks": not all(read.suites) or not read.suites,
        "on_request: expected lists of attacks": not all(read.on_request),
        f"columns: expected some of {', '.join(COLUMNS)}, each once": not read.columns
        or len(set(read.columns)) < len(read.columns),
    }
    for fault, holds in faults.items():
        if holds:
            raise SatbenchError(f"the board {path} is wrong: {fault}")
    return BoardDefinition(
        path.parent,
        read.summary,
        read.dataset,
        read.split,
        read.n,
        Threat.parse(read.threat),
        tuple(map(tuple, read.suites)),
        tuple(read.columns),
        tuple(map(tuple, read.on_request)),
    )
