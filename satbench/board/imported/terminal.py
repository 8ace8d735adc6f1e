"""The comparison of imported rows for a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from satbench.board.imported.observed import Kind, Observed
from satbench.board.imported.rows import Imported
from satbench.core.console import words
from satbench.core.markdown import MISSING, percent, signed
from satbench.core.stats.shown import Effect

_CAPTION = (
    "Mean robust accuracy, smooth minus ReLU, in points, with a 95 % interval clustered by paper; "
    "alike: within groups of the same architecture, eps and kind of training data; *: p < 0.05 "
    "after Holm's correction. An association, not an effect: the activations were not chosen at "
    "random, and smooth models often have more data, larger networks and newer recipes."
)


def answer(imported: Imported, found: Sequence[Observed]) -> Table:
    """Return smooth against ReLU, a line per benchmark, below the counts of the rows."""
    known = sum(row.activation is not None for row in imported.rows)
    table = Table(
        title=words(
            f"{imported.title}: {len(imported.rows)} rows imported, {known} with a known activation"
        ),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1),
        caption=words(_CAPTION),
        caption_justify="left",
    )
    table.add_column("Benchmark")
    for title in ("Smooth", "ReLU", "Not known", "All", "Alike", "Entries alike"):
        table.add_column(title, justify="right")
    for one in found:
        table.add_row(
            words(one.benchmark),
            *(words(_mean(one, kind)) for kind in ("smooth", "relu")),
            words(str(one.unknown)),
            words(_difference(one.crude)),
            words(_difference(one.within)),
            words(str(one.compared)),
        )
    return table


def _mean(one: Observed, kind: Kind) -> str:
    mean = percent(one.means[kind]) if kind in one.means else MISSING
    return f"{mean} ({one.entries[kind]})"


def _difference(effect: Effect | None) -> str:
    if effect is None:
        return MISSING
    if effect.interval is None:
        return f"{signed(effect.mean)} (too few papers)"
    low, high = (signed(end) for end in effect.interval)
    return f"{signed(effect.mean)}{'*' * effect.is_shown} [{low}, {high}]"
