"""The results of a record, as rows of a table and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from satbench.attacks import short_spec
from satbench.core.console import FittingTable, words
from satbench.core.specs import split_spec
from satbench.core.stats.intervals import wilson_interval
from satbench.core.text.html_text import html
from satbench.records.audit import audit_of
from satbench.records.record import Record, StageResult

_HEADINGS = ("accuracy after", "accuracy", "95 % interval", "n", "passes F + B", "time")

_NAME_WIDTH = 32
"""Width left for the names of attacks in 100 columns."""


@dataclass(frozen=True)
class ReportRow:
    """One line of a result: the accuracy after the attack `name`, and its cost.

    `accuracy` is `correct / n`; `low` and `high` are its 95 % Wilson interval.  Passes are those of
    the search, with those of surrogates counted separately; for `clean`, one forward an image.
    `seconds` are those of the search and the judge.
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
    source_forwards: int = 0
    source_backwards: int = 0


def rows_of(record: Record) -> list[ReportRow]:
    """Return the rows of a record: clean, after each attack of the suite, and overall."""
    clean = _row(record, "clean", record.clean_correct, (), record.environment.clean_seconds)
    rows = [replace(clean, forwards=record.n)]
    for attack, numbers in record.attack_stages():
        stages = [record.stages[k - 1] for k in numbers]
        seconds = sum(record.environment.stage_seconds[k - 1] for k in numbers)
        rows.append(_row(record, attack, record.surviving(numbers[-1]), stages, seconds))
    seconds = sum(row.seconds for row in rows)
    overall = _row(record, "overall", record.surviving(), record.stages, seconds)
    return [*rows, replace(overall, forwards=overall.forwards + record.n)]


def summary_of(record: Record, path: str) -> dict[str, Any]:
    """Return a record's result as plain data, for `--json`."""
    audit = audit_of(record)
    return {
        "model": record.model.name,
        "dataset": record.dataset.name,
        "n": record.n,
        "norm": record.norm,
        "eps": record.eps,
        "seed": record.seed,
        "rows": [asdict(row) for row in rows_of(record)],
        # None without a diagnosis; an empty list if it found nothing.
        "flags": record.diagnosis and [asdict(flag) for flag in record.diagnosis.flags],
        "replacements": record.replacements,
        "notes": record.notes,
        "audit": audit and {**asdict(audit), "text": str(audit)},
        "sequential": record.sequential
        and {**asdict(record.sequential), "population": record.dataset.population},
        "record": path,
    }


def table_of(records: Sequence[Record]) -> Group:
    """Return several records for a terminal of 100 columns.

    Each has a heading, a table, and notes: flags, an audit, an early stop.
    """
    shown = [(record, [_cells(row) for row in rows_of(record)]) for record in records]
    lines: list[Sequence[str]] = [_HEADINGS, *(line for _, cells in shown for line in cells)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    parts: list[RenderableType] = []
    for record, cells in shown:
        threat = f"{record.norm.capitalize()}, eps {record.eps}, {record.dataset.name}"
        heading = Text("\n").append(words(f"{record.model.name}  ", style="bold"))
        parts += [heading.append(words(threat)), _table(cells, widths)]
        parts += [words(note) for note in notes_of(record)]
    return Group(*parts)


def notes_of(record: Record) -> list[str]:
    """Return notes on a record in addition to its numbers, one sentence each."""
    notes = [f"flag {flag}" for flag in (record.diagnosis.flags if record.diagnosis else [])]
    if record.replacements:
        pairs = ", ".join(
            f"{layer} by {other.partition(' ')[0]}" for layer, other in record.replacements.items()
        )
        notes.append(f"searches replaced the gradient of {pairs} (BPDA); the judge did not")
    notes += record.notes
    audit, sequential = audit_of(record), record.sequential
    if audit:
        notes.append(str(audit))
    if sequential:
        notes.append(
            f"stopped after {record.n:,} of {record.dataset.population:,} images, in random order: "
            f"robust accuracy on all of them is {sequential.low:.1%} to {sequential.high:.1%} (95 "
            "%, however often one looks)"
        )
    return notes


def result_html(caption: str, rows: Sequence[ReportRow], notes: Sequence[str]) -> str:
    """Return a result as an HTML table, for notebooks, with the notes below it."""
    head = "".join(f"<th>{html(heading)}</th>" for heading in _HEADINGS)
    lines = "".join(
        f"<tr>{''.join(f'<td>{html(cell)}</td>' for cell in _cells(row))}</tr>" for row in rows
    )
    below = "".join(f"<p>{html(note)}</p>" for note in notes)
    return (
        f"<table><caption>{html(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{lines}</tbody></table>{below}"
    )


def _table(lines: Sequence[Sequence[str]], widths: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, (heading, width) in enumerate(zip(_HEADINGS, widths, strict=True)):
        if place:
            table.add_column(heading, justify="right", no_wrap=True, min_width=width)
        else:
            table.add_column(heading, overflow="fold", min_width=min(width, _NAME_WIDTH))
    for line in lines:
        table.add_row(*map(words, line), style="bold" if line[0] == "overall" else None)
    return table


def brief_table_of(records: Sequence[Record]) -> FittingTable:
    """Return one line per record: clean accuracy, robust accuracy, and its cost."""
    # Little padding, so that names of 38 letters fit on one line of 100 columns.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("model", overflow="fold")
    for heading in ("clean", "robust", *_HEADINGS[2:]):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        clean, *_, row = rows_of(record)
        _, robust, *details = _cells(row)
        table.add_row(words(record.model.name), f"{clean.accuracy:.1%}", robust, *details)
    return FittingTable(table, ("time", "passes F + B", "n"))


def _cells(row: ReportRow) -> list[str]:
    return [
        shown_name(row.name),
        f"{row.accuracy:.1%}",
        f"{row.low:.1%} – {row.high:.1%}",
        f"{row.n:,}",
        f"{_count(row.forwards + row.source_forwards)} + "
        f"{_count(row.backwards + row.source_backwards)}",
        _duration(row.seconds),
    ]


def shown_name(name: str) -> str:
    """Return a spec for people, which a table can break only between parameters.

    Sources are counted, not named; those of `fast` are left out.
    """
    if "(" not in name:
        return name
    short, arguments = split_spec(short_spec(name))
    if "source" in arguments:
        count = arguments["source"].count("+") + 1
        arguments["source"] = f"{count} models" if count > 1 else arguments["source"]
        if short == "fast":
            del arguments["source"]
        elif len(arguments["source"]) > _NAME_WIDTH - len("(source=),"):
            arguments["source"] = "1 model"
    inside = ", ".join(f"{key}={_shortened(value)}" for key, value in arguments.items())
    return f"{short}({inside})" if inside else short


def _shortened(value: str) -> str:
    return value if len(value) <= _NAME_WIDTH // 2 else f"{value[:12]}…"


def _row(
    record: Record, name: str, correct: int, stages: Sequence[StageResult], seconds: float
) -> ReportRow:
    low, high = wilson_interval(correct, record.n)
    return ReportRow(
        name=name,
        correct=correct,
        n=record.n,
        accuracy=correct / record.n,
        low=low,
        high=high,
        forwards=sum(stage.forwards for stage in stages),
        backwards=sum(stage.backwards for stage in stages),
        seconds=round(seconds, 3),
        source_forwards=sum(stage.source_forwards for stage in stages),
        source_backwards=sum(stage.source_backwards for stage in stages),
    )


def _count(passes: int) -> str:
    if passes < 10_000:
        return f"{passes:,}"
    return f"{passes / 1e3:.1f} k" if passes < 1e6 else f"{passes / 1e6:.2f} M"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
