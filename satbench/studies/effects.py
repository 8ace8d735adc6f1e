"""The effects in a study: differences paired by seed and image, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

import numpy as np
from numpy.typing import NDArray

from satbench.core.errors import SatbenchError
from satbench.core.stats.intervals import paired_t_interval
from satbench.core.stats.shown import Effect, Verdict, adjusted, two_way_effect
from satbench.model_zoo.card import OVERFITTED
from satbench.studies.design import Pair, Pool
from satbench.studies.run_file import SURVIVED, WRONG, StudyRun
from satbench.studies.sheet import ArmRuns, Sheet, outcomes_of, verdicts_of

COLLAPSE = 0.2
"""How far below the median of its arm a run's robust accuracy must be to count as collapsed."""

_Side = tuple[ArmRuns, StudyRun]


@dataclass(frozen=True)
class Finding:
    """The answer to one contrast: by the strongest verdict, by the paper's evaluation, and clean.

    A part is None if the two arms (for a pool, its pairs) have no evaluated seed in common.
    """

    pair: Pair | Pool
    robust: Effect | None
    paper: Effect | None
    clean: Effect | None

    @property
    def verdict(self) -> Verdict:
        """The answer by the strongest verdict."""
        return self.robust.verdict if self.robust else "too few seeds"

    @property
    def changes(self) -> bool:
        """Whether the paper's evaluation gives another conclusion."""
        if self.robust is None or self.paper is None:
            return False
        return self.paper.verdict != self.robust.verdict


@dataclass(frozen=True)
class Collapse:
    """How many runs collapsed in the arms and in the baselines of a primary question.

    `p` is that of Fisher's exact test, two-sided.  `by_arm` has for each arm of the study with runs
    its name, the collapsed runs and all runs.
    """

    arm: str
    baseline: str
    collapsed: int
    runs: int
    baseline_collapsed: int
    baseline_runs: int
    p: float
    by_arm: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Spread:
    """A mean over seeds with its standard deviation (n − 1), None for one seed."""

    mean: float
    deviation: float | None
    seeds: int


def findings_of(sheet: Sheet) -> tuple[Finding, ...]:
    """Return the answer to each contrast of a study, in order, with p adjusted in each column."""
    robust = effects_of(sheet, sheet.study.verdict)
    paper = effects_of(sheet, sheet.study.paper_verdict)
    clean = adjusted(
        [_paired(sheet, pair, sheet.study.verdict, clean=True) for pair in sheet.study.contrasts],
        planned=True,
    )
    return tuple(map(Finding, sheet.study.contrasts, robust, paper, clean))


def primary_of(sheet: Sheet) -> Finding | None:
    """Return the answer to the primary question, tested by itself; None if there is none."""
    if sheet.study.primary is None:
        return None
    return Finding(
        sheet.study.primary,
        pooled_effect(sheet, sheet.study.primary, sheet.study.verdict),
        pooled_effect(sheet, sheet.study.primary, sheet.study.paper_verdict),
        pooled_effect(sheet, sheet.study.primary, sheet.study.verdict, clean=True),
    )


def pooled_effect(sheet: Sheet, pool: Pool, column: str, clean: bool = False) -> Effect | None:
    """Return the effect of the mean over a pool's pairs, image by image and seed by seed.

    Only seeds with all pairs evaluated count; None if there is none.  Raises SatbenchError for
    pairs on different images.
    """
    sides = [side for pair in pool.pairs for sides in _sides(sheet, pair) for side in sides]
    _check_images(sheet, sides, column)
    found = [_differences(sheet, pair, column, clean) for pair in pool.pairs]
    seeds = [seed for seed in found[0] if all(seed in one for one in found)]
    if not seeds:
        return None
    return two_way_effect(np.stack([np.mean([one[seed] for one in found], 0) for seed in seeds]))


def effects_of(sheet: Sheet, column: str) -> list[Effect | None]:
    """Return the effect of each contrast in one column, p adjusted for their number (Holm).

    Contrasts that are not evaluated yet count in the number.
    """
    return adjusted([_paired(sheet, pair, column) for pair in sheet.study.contrasts], planned=True)


def gap_of(sheet: Sheet, row: ArmRuns) -> Effect | None:
    """Return by how much the paper's column is above the verdict; None without runs."""
    return _difference(
        (_survived(verdicts_of(sheet, row, run, column)) for column in _both(sheet))
        for run in row.runs
    )


def accuracies(sheet: Sheet, row: ArmRuns, column: str) -> dict[int, float]:
    """Return the robust accuracy of each evaluated run, by seed."""
    found = {run.seed: verdicts_of(sheet, row, run, column) for run in row.runs}
    return {seed: text.count(SURVIVED) / len(text) for seed, text in found.items() if text}


def clean_accuracies(sheet: Sheet, row: ArmRuns) -> dict[int, float]:
    """Return the clean accuracy of each run with any evaluation, by seed."""
    shares = {}
    for run in row.runs:
        for column in sheet.columns:
            if outcomes := outcomes_of(sheet, row, run, column.name):
                shares[run.seed] = outcomes[0].clean_accuracy
                break
    return shares


def spread(values: Iterable[float]) -> Spread | None:
    """Return mean and deviation of a number over seeds; None without numbers."""
    numbers = list(values)
    if not numbers:
        return None
    return Spread(fmean(numbers), stdev(numbers) if len(numbers) > 1 else None, len(numbers))


def measure_difference(sheet: Sheet, pair: Pair, name: str) -> Effect | None:
    """Return the difference of a gradient measure, paired by seed, in the measure's unit.

    Its interval is only over seeds, because a measure is stored as a mean over images.
    """
    arm, baseline = (_measured(sheet.row(one), name) for one in (pair.arm, pair.baseline))
    differences = [arm[seed] - baseline[seed] for seed in arm if seed in baseline]
    if not differences:
        return None
    if len(differences) < 2:
        return Effect(differences[0], 1)
    interval = paired_t_interval(differences)
    return Effect(fmean(differences), len(differences), interval, interval)


def collapsed(sheet: Sheet, row: ArmRuns) -> list[tuple[StudyRun, str]]:
    """Return the collapsed runs of an arm, each with the reason; they still count."""
    shares = accuracies(sheet, row, sheet.study.verdict)
    middle = median(shares.values()) if shares else 0.0
    found = []
    for run in row.runs:
        reasons = [note for note in run.notes if note.startswith(OVERFITTED)]
        if run.seed in shares and middle - shares[run.seed] > COLLAPSE:
            share = f"{100 * shares[run.seed]:.1f} %"
            reasons.append(f"robust accuracy {share}, the median of the arm {100 * middle:.1f} %")
        if reasons:
            found.append((run, "; ".join(reasons)))
    return found


def collapse_of(sheet: Sheet) -> Collapse | None:
    """Return how many runs collapsed, for a pre-registered study; None without runs to compare."""
    if not sheet.study.registered or sheet.study.primary is None:
        return None
    counts = {row.name: (len(collapsed(sheet, row)), len(row.runs)) for row in sheet.rows}
    pool = sheet.study.primary
    (fell, runs), (fell_baseline, runs_baseline) = (
        [sum(found) for found in zip(*(counts[name] for name in names), strict=True)]
        for names in ({pair.arm for pair in pool.pairs}, {pair.baseline for pair in pool.pairs})
    )
    if not runs or not runs_baseline:
        return None
    from scipy.stats import fisher_exact

    sides = [[fell, runs - fell], [fell_baseline, runs_baseline - fell_baseline]]
    p = float(fisher_exact(sides)[1])
    by_arm = tuple((name, *found) for name, found in counts.items() if found[1])
    return Collapse(pool.arm, pool.baseline, fell, runs, fell_baseline, runs_baseline, p, by_arm)


def _measured(row: ArmRuns, name: str) -> dict[int, float]:
    return {run.seed: run.measures[name] for run in row.runs if name in run.measures}


def _paired(sheet: Sheet, pair: Pair, column: str, clean: bool = False) -> Effect | None:
    rows = _differences(sheet, pair, column, clean).values()
    return two_way_effect(np.stack(list(rows))) if rows else None


def _sides(sheet: Sheet, pair: Pair) -> list[tuple[_Side, _Side]]:
    """Return arm and baseline with their runs, for each seed that both have."""
    arm, baseline = sheet.row(pair.arm), sheet.row(pair.baseline)
    partners = {run.seed: run for run in baseline.runs}
    return [
        ((arm, run), (baseline, partners[run.seed])) for run in arm.runs if run.seed in partners
    ]


def _differences(
    sheet: Sheet, pair: Pair, column: str, clean: bool
) -> dict[int, NDArray[np.float64]]:
    """Return arm minus baseline image by image, for each seed with both evaluated."""
    read = _right if clean else _survived
    found = {}
    for sides in _sides(sheet, pair):
        _check_images(sheet, sides, column)
        first, second = (read(verdicts_of(sheet, *side, column)) for side in sides)
        if first is not None and second is not None:
            found[sides[0][1].seed] = first - second
    return found


def _check_images(sheet: Sheet, sides: Sequence[_Side], column: str) -> None:
    # Images at another resolution are paired too: they are the same images.
    digests = {
        (row.dataset, outcome.data_digest)
        for row, run in sides
        for outcome in outcomes_of(sheet, row, run, column) or ()
    }
    if len(digests) > len({dataset for dataset, _ in digests}):
        names = " and ".join(dict.fromkeys(row.name for row, _ in sides))
        raise SatbenchError(f"expected {names} on the same images, got more than one digest")


def _difference(pairs: Iterable[Iterable[NDArray[np.float64] | None]]) -> Effect | None:
    rows = [first - second for first, second in pairs if first is not None and second is not None]
    return two_way_effect(np.stack(rows)) if rows else None


def _survived(text: str | None) -> NDArray[np.float64] | None:
    return None if text is None else np.array([float(letter == SURVIVED) for letter in text])


def _right(text: str | None) -> NDArray[np.float64] | None:
    return None if text is None else np.array([float(letter != WRONG) for letter in text])


def _both(sheet: Sheet) -> tuple[str, str]:
    return sheet.study.paper_verdict, sheet.study.verdict
