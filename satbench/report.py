"""What a record says, as rows for people and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table

from satbench.attacks import short_spec
from satbench.leaderboard.record import Record
from satbench.leaderboard.statistics import wilson_interval


@dataclass(frozen=True)
class Row:
    """One line of a result: accuracy after what `name` says, with what it cost.

    `accuracy` is `correct / n`; `low` and `high` are its 95 % Wilson interval; passes are of the
    search alone, `seconds` of the search and the judge.
    """

    name: str
    correct: int
    n: int
    accuracy: float
    low: float
    high: float
    forwards: int
    backwards: int
    seconds: float


def rows_of(record: Record) -> list[Row]:
    """Return the rows of a record: clean, after each attack of the suite, and overall."""
    clean = _row(
        record, "clean", record.clean_correct, record.n, 0, record.environment.clean_seconds
    )
    rows = [clean]
    for attack in record.suite:
        numbers = [k for k, stage in enumerate(record.stages) if stage.attack == attack]
        rows.append(
            _row(
                record,
                attack,
                record.surviving(numbers[-1] + 1),
                sum(record.stages[k].forwards for k in numbers),
                sum(record.stages[k].backwards for k in numbers),
                sum(record.environment.stage_seconds[k] for k in numbers),
            )
        )
    forwards, backwards = (sum(row.forwards for row in rows), sum(row.backwards for row in rows))
    seconds = sum(row.seconds for row in rows)
    return [*rows, _row(record, "overall", record.surviving(), forwards, backwards, seconds)]


def summary_of(record: Record, path: str) -> dict[str, Any]:
    """Return a record's result as plain data, for `--json`."""
    return {
        "model": record.model.name,
        "dataset": record.dataset.name,
        "n": record.n,
        "norm": record.norm,
        "eps": record.eps,
        "seed": record.seed,
        "rows": [asdict(row) for row in rows_of(record)],
        "record": path,
    }


def table_of(records: Sequence[Record]) -> Table:
    """Return a table of several records for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", overflow="fold")
    table.add_column("accuracy after", overflow="fold")
    for heading in ("accuracy", "95 % interval", "n", "passes F + B", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        for number, row in enumerate(rows_of(record)):
            last = row.name == "overall"
            table.add_row(
                _model_cell(record, number),
                short_spec(row.name) if row.name in record.suite else row.name,
                f"{row.accuracy:.1%}",
                *_details(row),
                style="bold" if last else None,
                end_section=last,
            )
    return table


def brief_table_of(records: Sequence[Record]) -> Table:
    """Return one line a record: clean accuracy, what is left in the end, and its cost."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", overflow="fold")
    for heading in ("clean", "robust", "95 % interval", "n", "passes F + B", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        clean, *_, row = rows_of(record)
        table.add_row(
            record.model.name,
            f"{clean.accuracy:.1%}",
            f"{row.accuracy:.1%}",
            *_details(row),
        )
    return table


def _model_cell(record: Record, line: int) -> str:
    threat = f"{record.norm.capitalize()}, eps {record.eps}"
    return (record.model.name, threat, record.dataset.name)[line] if line < 3 else ""


def _details(row: Row) -> tuple[str, str, str, str]:
    return (
        f"{row.low:.1%} – {row.high:.1%}",
        f"{row.n:,}",
        f"{_count(row.forwards)} + {_count(row.backwards)}",
        _duration(row.seconds),
    )


def _row(
    record: Record, name: str, correct: int, forwards: int, backwards: int, seconds: float
) -> Row:
    low, high = wilson_interval(correct, record.n)
    accuracy = correct / record.n
    return Row(name, correct, record.n, accuracy, low, high, forwards, backwards, round(seconds, 3))


def _count(passes: int) -> str:
    if passes < 10_000:
        return f"{passes:,}"
    return f"{passes / 1e3:.1f} k" if passes < 1e6 else f"{passes / 1e6:.2f} M"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
