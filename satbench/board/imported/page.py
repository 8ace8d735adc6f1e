"""Imported rows as markdown, CSV and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from satbench.board.imported.observed import Observed, smooth_against_relu
from satbench.board.imported.rows import SCHEMA, Imported, ImportedRow
from satbench.board.marks import PROMISES
from satbench.core.markdown import MISSING, address, cell, percent, signed, table
from satbench.core.stats.shown import Effect
from satbench.core.templates import fill
from satbench.core.text.csv_text import csv_text
from satbench.core.text.json_text import json_text

ATTACKED = ("linf", "l2", "l1")
"""Norms of threat models; images of other rows are corrupted without an adversary."""


def observed(imported: Imported) -> list[Observed]:
    """Return smooth activations against ReLU among the rows, benchmark by benchmark."""
    benchmarks = imported.benchmarks().values()
    return smooth_against_relu([rows for rows in benchmarks if rows[0].norm in ATTACKED])


def render_imported(imported: Imported) -> str:
    """Return IMPORTED.md: smooth against ReLU, then the rows of each benchmark."""
    found = observed(imported)
    values = {
        "title": cell(imported.title),
        "source": cell(imported.source),
        "link": address(imported.link),
        "promise": PROMISES["imported"],
        "rows": f"{len(imported.rows):,}",
        "known": f"{sum(row.activation is not None for row in imported.rows):,}",
        "answer": answer_table(found),
        "twins": [_twins(one) for one in found if one.twins],
        "benchmarks": [
            {"title": cell(name), "rows": rows_table(rows)}
            for name, rows in imported.benchmarks().items()
        ],
    }
    return fill("imported.md", values).rstrip() + "\n"


def render_beside(publications: Sequence[Imported]) -> str:
    """Return the section of a board's page with imported rows; empty if there are none."""
    values = {
        "promise": PROMISES["imported"],
        "publications": [
            {
                "title": cell(one.title),
                "source": cell(one.source),
                "link": address(one.link),
                "rows": len(one.rows),
                "table": rows_table(one.rows),
            }
            for one in publications
        ],
    }
    return fill("imported-beside.md", values).strip() if publications else ""


def rows_table(rows: Sequence[ImportedRow]) -> str:
    """Return imported rows as a markdown table, with the publication's own digits."""
    places = any(row.where for row in rows)
    head = [
        *("Model", "Architecture", "Activation", *["Published in"] * places, "Mark"),
        *("n", "eps", "Clean", "Attack", "Robust", "Later"),
    ]
    lines = [
        [
            cell(row.name) + " ‡" * row.doubted,
            cell(row.architecture) or MISSING,
            _activation(row),
            *([cell(row.where)] if places else []),
            row.mark,
            MISSING if row.n is None else f"{row.n:,}",
            MISSING if row.eps is None else cell(row.eps),
            row.clean,
            cell(row.attack),
            row.robust or MISSING,
            row.lower or MISSING,
        ]
        for row in rows
    ]
    return table(head, lines, words=4 + places)


def answer_table(found: Sequence[Observed]) -> str:
    """Return smooth against ReLU as a markdown table with a line per benchmark."""
    head = [
        *("Benchmark", "Smooth", "ReLU", "Not known", "Left out", "Mean, smooth", "Mean, ReLU"),
        *("Difference", "Among alike entries", "Alike"),
    ]
    return table(head, [_answer(one) for one in found], words=1)


def render_imported_csv(imported: Imported) -> str:
    """Return one line per row; a field is empty if the publication does not say it."""
    return csv_text(
        [
            {**msgspec.to_builtins(row), "beside": " ".join(row.beside)}
            | {"source": imported.source}
            for row in imported.rows
        ]
    )


def render_imported_json(imported: Imported) -> str:
    """Return the file that `read_imported` reads."""
    value = {"schema": SCHEMA, "kind": "imported rows", **msgspec.to_builtins(imported)}
    return json_text(value)


def observed_numbers(one: Observed) -> dict[str, Any]:
    """Return an answer for programs: shares in [0, 1]."""
    return {
        **{name: getattr(one, name) for name in ("benchmark", "entries", "papers", "means")},
        **{name: getattr(one, name) for name in ("unknown", "neither", "nominal")},
        "crude": _effect_numbers(one.crude),
        "within": _effect_numbers(one.within),
        "strata": one.strata,
        "compared": one.compared,
        "twins": [[smooth.name, relu.name] for smooth, relu in one.twins],
    }


def _effect_numbers(effect: Effect | None) -> dict[str, Any] | None:
    if effect is None:
        return None
    low, high = effect.interval or (None, None)
    return {
        "difference": effect.mean,
        "low": low,
        "high": high,
        "p": effect.counted,
        "papers": effect.seeds,
        "is_shown": effect.is_shown,
    }


def _activation(row: ImportedRow) -> str:
    if row.activation is None:
        return MISSING
    return cell(
        f"{row.activation} (with {', '.join(row.beside)})" if row.beside else row.activation
    )


def _answer(one: Observed) -> list[str]:
    counts = [f"{one.entries[kind]} ({one.papers[kind]} papers)" for kind in ("smooth", "relu")]
    means = [percent(one.means[kind]) if kind in one.means else MISSING for kind in one.entries]
    alike = f"{one.compared} in {one.strata}" if one.strata else MISSING
    left = f"{one.neither + one.nominal}"
    effects = [_difference(one.crude), _difference(one.within)]
    return [cell(one.benchmark), *counts, str(one.unknown), left, *means, *effects, alike]


def _difference(effect: Effect | None) -> str:
    if effect is None:
        return MISSING
    mean = signed(effect.mean)
    if effect.interval is None:
        return f"{mean} (too few papers for an interval)"
    low, high = (signed(end) for end in effect.interval)
    text = f"[{low}, {high}] (p = {effect.counted:.2g})"
    return f"**{mean}** {text}" if effect.is_shown else f"{mean} {text}"


def _twins(one: Observed) -> dict[str, object]:
    lines = [
        [
            cell(smooth.name),
            cell(relu.name),
            cell(smooth.architecture),
            cell(f"{smooth.activation}, {relu.activation}"),
            smooth.robust or MISSING,
            relu.robust or MISSING,
        ]
        for smooth, relu in one.twins
    ]
    head = ["Smooth", "ReLU", "Architecture", "Activations", "Robust, smooth", "Robust, ReLU"]
    return {"title": cell(one.benchmark), "table": table(head, lines, words=4)}
