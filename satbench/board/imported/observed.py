"""Smooth activations against ReLU among imported rows: an association, clustered by paper.

The activations of published models were not chosen at random.  Models with a smooth one also have
more data, larger networks and newer recipes.  So the numbers here say how such models differ, not
what an activation does.  `satbench study` trains models that differ only in the activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from satbench.board.imported.activations import kind_of
from satbench.board.imported.rows import ImportedRow
from satbench.core.errors import SatbenchError
from satbench.core.stats.intervals import CONFIDENCE
from satbench.core.stats.shown import Effect, adjusted

LEAST_PAPERS = 5
"""How many papers of each kind an interval needs: with fewer it is far too narrow."""

NOMINAL = "Standard"
"""The beginning of the names of entries without adversarial training, in RobustBench."""

Kind = Literal["smooth", "relu"]


@dataclass(frozen=True)
class Observed:
    """Smooth activations against ReLU among the imported rows of one benchmark.

    `entries` and `papers` are counts of each kind; `unknown` entries have no known activation,
    `neither` is for activations that are not ReLU and have a jump.  `means` are shares.  `crude` is
    the difference of the means (smooth minus ReLU), and `within` that among entries with the same
    architecture and the same kind of training data (extra, synthetic or neither); `strata` counts
    such groups with both kinds, and `compared` their entries.  Effects count papers as seeds.
    `twins` are pairs of one paper that, according to the entries, differ only in the activation.
    """

    benchmark: str
    entries: dict[Kind, int]
    papers: dict[Kind, int]
    means: dict[Kind, float]
    unknown: int
    neither: int
    nominal: int
    crude: Effect | None
    within: Effect | None
    strata: int
    compared: int
    twins: tuple[tuple[ImportedRow, ImportedRow], ...]


def smooth_against_relu(benchmarks: Sequence[Sequence[ImportedRow]]) -> list[Observed]:
    """Compare the kinds on each benchmark; p is corrected for their number (Holm), per column.

    Rows without adversarial training and rows without a robust accuracy are left out.
    """
    found = [_observed(rows) for rows in benchmarks if rows]
    crude = adjusted([one.crude for one in found])
    within = adjusted([one.within for one in found])
    return [
        Observed(**{**one.__dict__, "crude": first, "within": second})
        for one, first, second in zip(found, crude, within, strict=True)
    ]


def clustered_effect(
    values: NDArray[np.float64],
    treated: NDArray[np.bool_],
    clusters: Sequence[str],
    strata: Sequence[str] | None = None,
) -> Effect | None:
    """Return by how much `values` are higher where `treated`, (E,) each, with clustered noise.

    Entries are compared only within each of `strata`, by default one.  The variance is clustered
    (Liang & Zeger, 1986, with the factor G / (G - 1)), t has G - 1 degrees of freedom, and G counts
    the clusters with weight.  None if no stratum has both kinds.  There is no interval for fewer
    than `LEAST_PAPERS` clusters of either kind.  Raises SatbenchError for lengths that differ.
    """
    groups = np.asarray(strata if strata is not None else [""] * len(values))
    if not len(values) == len(treated) == len(clusters) == len(groups):
        raise SatbenchError("expected as many values as kinds, clusters and strata")
    y, d = values.astype(np.float64).copy(), treated.astype(np.float64)
    for group in np.unique(groups):
        inside = groups == group
        y[inside] -= y[inside].mean()
        d[inside] -= d[inside].mean()
    weight = float(d @ d)
    carries = np.abs(d) > 1e-12
    if weight < 1e-12:
        return None
    slope = float(d @ y) / weight
    names = np.asarray(clusters)
    of_each = [len(set(names[carries & (treated == kind)])) for kind in (True, False)]
    used = sorted(set(names[carries]))
    if min(of_each) < LEAST_PAPERS:
        return Effect(slope, len(used))
    scores = np.array([float(d[names == one] @ (y - slope * d)[names == one]) for one in used])
    count = len(used)
    error = sqrt(count / (count - 1) * float(scores @ scores)) / weight
    from scipy.special import stdtr, stdtrit  # Student's distribution, and inverted

    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * error
    p = 2 * float(stdtr(count - 1, -abs(slope) / error)) if error else float(slope == 0)
    return Effect(slope, count, (slope - half, slope + half), None, p)


def _observed(rows: Sequence[ImportedRow]) -> Observed:
    attacked = [row for row in rows if row.robust is not None]
    trained = [row for row in attacked if not row.name.startswith(NOMINAL)]
    kinds = [kind_of(row.activation, row.beside) for row in trained]
    known = [(row, kind) for row, kind in zip(trained, kinds, strict=True) if kind]
    values = np.array([float(row.robust or 0) / 100 for row, _ in known])
    smooth = np.array([kind == "smooth" for _, kind in known], dtype=bool)
    clusters = [row.link or row.paper for row, _ in known]
    strata = [_stratum(row) for row, _ in known]
    both = {
        one
        for one in strata
        if len({kind for (_, kind), own in zip(known, strata, strict=True) if own == one}) == 2
    }
    by_kind: dict[Kind, list[ImportedRow]] = {
        kind: [row for row, own in known if own == kind] for kind in ("smooth", "relu")
    }
    return Observed(
        benchmark=rows[0].benchmark,
        entries={kind: len(found) for kind, found in by_kind.items()},
        papers={
            kind: len({row.link or row.paper for row in found}) for kind, found in by_kind.items()
        },
        means={
            kind: float(np.mean([float(row.robust or 0) / 100 for row in found]))
            for kind, found in by_kind.items()
            if found
        },
        unknown=sum(row.activation is None for row in trained),
        neither=sum(
            row.activation is not None and kind is None
            for row, kind in zip(trained, kinds, strict=True)
        ),
        nominal=len(attacked) - len(trained),
        crude=clustered_effect(values, smooth, clusters) if len(known) else None,
        within=clustered_effect(values, smooth, clusters, strata) if len(known) else None,
        strata=len(both),
        compared=sum(one in both for one in strata),
        twins=_twins(by_kind),
    )


def _stratum(row: ImportedRow) -> str:
    made = "synthetic" in row.note.lower() or "generated" in row.note.lower()
    return f"{row.architecture}|{row.extra_data}|{made}|{row.eps}"


def _twins(by_kind: dict[Kind, list[ImportedRow]]) -> tuple[tuple[ImportedRow, ImportedRow], ...]:
    return tuple(
        (smooth, relu)
        for smooth in by_kind["smooth"]
        for relu in by_kind["relu"]
        if (smooth.link, smooth.paper) == (relu.link, relu.paper)
        and _stratum(smooth) == _stratum(relu)
    )
