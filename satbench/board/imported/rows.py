"""Rows that others published: accuracies without the result of each image, marked 'imported'."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from satbench.board.marks import Mark
from satbench.core.errors import SatbenchError
from satbench.core.schema import convert, parse_schema, read_text, read_toml_values

SCHEMA = 1

_PERCENT = re.compile(r"\d{1,3}(\.\d{1,6})?", re.ASCII)


@dataclass(frozen=True)
class ImportedRow:
    """A model on a benchmark, with the numbers of a publication.

    `clean` and `robust` are percent with the published digits; `robust` is the accuracy after
    `attack`, and `lower` a lower number of a later evaluation, if any.  `n` is the number of images
    and `activation` that of the network, None if the publication does not say; `activation_source`
    is the source, and `beside` lists other activations of small parts.  `extra_data` says whether
    it was trained on more images than those of the data set.  `doubted` repeats the publication's
    own warning.  `where` is the place in the publication.
    """

    name: str
    dataset: str
    norm: str
    eps: str | None
    architecture: str
    clean: str
    attack: str
    robust: str | None = None
    lower: str | None = None
    n: int | None = None
    activation: str | None = None
    activation_source: str = ""
    beside: tuple[str, ...] = ()
    extra_data: bool | None = None
    doubted: bool = False
    where: str = ""
    note: str = ""
    paper: str = ""
    authors: str = ""
    venue: str = ""
    link: str = ""
    mark: Literal["imported"] = "imported"

    @property
    def robust_share(self) -> float | None:
        """The published robust accuracy as a share in [0, 1]."""
        return None if self.robust is None else float(self.robust) / 100

    @property
    def benchmark(self) -> str:
        """The benchmark for people: `cifar10, Linf`."""
        return f"{self.dataset}, {self.norm.capitalize()}"


@dataclass(frozen=True)
class Imported:
    """The rows of one publication: a benchmark's data or a paper; `link` is its address."""

    title: str
    source: str
    link: str
    rows: tuple[ImportedRow, ...]
    mark: Mark = "imported"

    def benchmarks(self) -> dict[str, tuple[ImportedRow, ...]]:
        """Return the rows of each benchmark, in the publication's order."""
        found: dict[str, list[ImportedRow]] = {}
        for row in self.rows:
            found.setdefault(row.benchmark, []).append(row)
        return {name: tuple(rows) for name, rows in found.items()}


@dataclass(frozen=True)
class _File:
    schema: int
    title: str
    source: str
    link: str
    rows: tuple[ImportedRow, ...]
    kind: str = "imported rows"
    mark: Literal["imported"] = "imported"


def read_imported(path: Path) -> Imported:
    """Read a file of imported rows: hand-written TOML, or JSON by `satbench leaderboard import`.

    In TOML `[common]` has the fields that all rows share.  Raises SatbenchError naming file and
    field.
    """
    if path.suffix == ".toml":
        values = read_toml_values(path, "file of imported rows")
        common = values.pop("common", {})
        given = values.get("rows")
        if isinstance(common, dict) and isinstance(given, list):
            values["rows"] = [{**common, **one} for one in given if isinstance(one, dict)]
    else:
        text = read_text(path, "file of imported rows")
        values = parse_schema(text, "file of imported rows", str(path), (SCHEMA,), "imported rows")
    file = convert(values, _File, "file of imported rows", str(path))
    if file.schema != SCHEMA:
        raise SatbenchError(
            f"expected schema {SCHEMA} in {path}, got {file.schema}; update satbench"
        )
    check_rows(file.rows, str(path))
    return Imported(file.title, file.source, file.link, file.rows)


def check_rows(rows: Sequence[ImportedRow], where: str) -> None:
    """Raise SatbenchError for a number that is not a percentage, and for a repeated row."""
    seen = set()
    for row in rows:
        for field in ("clean", "robust", "lower"):
            check_percent(getattr(row, field), field, f"{where}: {row.name!r}")
        if row.n is not None and row.n < 1:
            raise SatbenchError(f"{where}: {row.name!r}: n: expected 1 or more, got {row.n}")
        key = (row.dataset, row.norm, row.eps, row.name, row.attack)
        if key in seen:
            raise SatbenchError(f"{where}: {row.name!r} is there twice; remove one of them")
        seen.add(key)


def check_percent(text: str | None, field: str, where: str) -> None:
    """Raise SatbenchError unless a text is a percentage such as `62.80`, or None."""
    if text is not None and not (_PERCENT.fullmatch(text) and float(text) <= 100):
        raise SatbenchError(f"{where}: {field}: expected percent such as '62.80', got {text!r}")


def with_rows(imported: Imported, rows: Sequence[ImportedRow]) -> Imported:
    """Return the same publication with other rows."""
    return replace(imported, rows=tuple(rows))
