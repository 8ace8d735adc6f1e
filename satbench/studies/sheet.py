"""A study with its runs: the data for its page and figures.  No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from satbench.core.errors import SatbenchError
from satbench.studies.design import Choice, Study
from satbench.studies.run_file import BROKEN, SURVIVED, WRONG, Outcome, StudyRun


@dataclass(frozen=True)
class Column:
    """One evaluation: a suite of canonical specs with a threat model, `NORM:EPS`.

    With `worst_of`, names of other columns, an image survives if it survives in all of them.
    """

    name: str
    suite: tuple[str, ...] = ()
    threat: str = ""
    worst_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArmRuns:
    """An arm of the study, and its existing runs, ordered by seed.

    `settings` describes how it differs.  `seeds` is how many runs are planned, `dataset` the name
    of the evaluated images.
    """

    name: str
    settings: str
    runs: tuple[StudyRun, ...]
    seeds: int
    dataset: str


@dataclass(frozen=True)
class Shape:
    """An activation: f and its derivative, at each x."""

    name: str
    x: tuple[float, ...]
    f: tuple[float, ...]
    df: tuple[float, ...]


@dataclass(frozen=True)
class Sheet:
    """A study with its kept runs: everything that its page and figures need.

    `columns` are its evaluations with canonical specs and threat models.  `n` is the number of
    images.  `facts` are lines of the set-up table, such as ("recipe", "fmnist-sat"); `caveats` are
    in markdown.  `measures` describes the gradient measures by name; others are not shown.
    `commands` make the page again.  `choices` are the values that a sweep chose for the arms, by
    held-out accuracies for each of its `swept` values.
    """

    study: Study
    rows: tuple[ArmRuns, ...]
    columns: tuple[Column, ...]
    n: int
    commands: tuple[str, ...]
    facts: tuple[tuple[str, str], ...] = ()
    caveats: tuple[str, ...] = ()
    measures: Mapping[str, str] = field(default_factory=dict)
    shapes: tuple[Shape, ...] = ()
    swept: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()

    def row(self, name: str) -> ArmRuns:
        """Return the arm with a name."""
        return next(row for row in self.rows if row.name == name)

    def column(self, name: str) -> Column:
        """Return the column with a name."""
        return next(column for column in self.columns if column.name == name)


@dataclass(frozen=True)
class Picture:
    """A figure of a page: the suffix of its file's name, and its caption."""

    suffix: str
    caption: str


def pictures_of(sheet: Sheet) -> dict[str, Picture]:
    """Return the figures of a study, by kind, in the order of the page.

    Their files are `NAME` + suffix + `.svg` and `.png`.
    """
    kinds = {}
    if any(run.outcomes for row in sheet.rows for run in row.runs):
        kinds["scatter"] = Picture(
            "", "Accuracy against robustness, each arm's mean and standard deviation over seeds."
        )
        if sheet.study.about == "gaps":
            kinds["attacks"] = Picture(
                "-attacks", "Robust accuracy under each attack, arm by arm: mean over seeds."
            )
        if sheet.study.questions:
            kinds["effects"] = Picture(
                "-effects", "Differences in robust accuracy with 95 % intervals, paired by seed."
            )
        for number, axis in enumerate(sheet.study.axes):
            caption = (
                f"Robust accuracy against {axis.label}, mean and standard deviation over seeds."
            )
            kinds[f"lines {number}"] = Picture(f"-lines-{number + 1}", caption)
    if telling_measures_of(sheet):
        kinds["measures"] = Picture(
            "-measures", "Gradient measures: every seed, mean and standard deviation."
        )
    if sheet.shapes:
        kinds["shapes"] = Picture("-shapes", "The activations and their derivatives.")
    return kinds


def measures_of(sheet: Sheet) -> list[str]:
    """Return the names of the study's measures that a run has."""
    made = {name for row in sheet.rows for run in row.runs for name in run.measures}
    return [name for name in sheet.measures if name in made]


def telling_measures_of(sheet: Sheet) -> list[str]:
    """Return the measures that are not exactly 0 in every run."""
    runs = [run for row in sheet.rows for run in row.runs]
    return [name for name in measures_of(sheet) if any(run.measures.get(name) for run in runs)]


def outcomes_of(
    sheet: Sheet, row: ArmRuns, run: StudyRun, column: str
) -> tuple[Outcome, ...] | None:
    """Return the outcomes of a column: one, or one per part; None if one is missing."""
    asked = sheet.column(column)
    parts = [sheet.column(name) for name in asked.worst_of] or [asked]
    found = [run.outcome(part.suite, part.threat, row.dataset, sheet.n) for part in parts]
    whole = tuple(one for one in found if one is not None)
    return whole if len(whole) == len(parts) else None


def verdicts_of(sheet: Sheet, row: ArmRuns, run: StudyRun, column: str) -> str | None:
    """Return a letter per image, for a worst-of column the worst; None if not evaluated.

    Raises SatbenchError if the parts have different images, or disagree on which are wrong when
    clean.
    """
    parts = outcomes_of(sheet, row, run, column)
    if parts is None:
        return None
    if len({part.data_digest for part in parts}) > 1:
        raise SatbenchError(f"the parts of {column} have different images in run {run.key}")
    images = list(zip(*(part.verdicts for part in parts), strict=True))
    worst = {letters: _worst(letters, run) for letters in set(images)}
    return "".join(worst[letters] for letters in images)


def _worst(letters: Sequence[str], run: StudyRun) -> str:
    if (WRONG in letters) != all(letter == WRONG for letter in letters):
        raise SatbenchError(
            f"the evaluations of run {run.key} disagree on which images are wrong when clean; "
            "evaluate it again"
        )
    return WRONG if WRONG in letters else BROKEN if BROKEN in letters else SURVIVED
