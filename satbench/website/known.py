"""Robust accuracy of a model at other radii and step counts.

It comes from the boards of the site, from curves (`satbench curve`) and from the runs of studies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from satbench.attacks import short_spec
from satbench.core.content import content_folder
from satbench.core.errors import SatbenchError
from satbench.core.specs import split_spec
from satbench.core.threat import Threat
from satbench.records.attack_run import attack_runs
from satbench.records.curves import Curve
from satbench.records.record import ModelInfo, Record
from satbench.studies.run_file import StudyRun, read_study_run

_PLAIN = {"restarts": "1", "start": "uniform", "keep": "any"}
"""The other parameters of PGD in the runs that are compared over step counts."""


@dataclass(frozen=True)
class KnownPoint:
    """A measurement: at `x`, an eps or a number of steps, `count` of `n` images are right."""

    x: float
    count: int
    n: int

    @property
    def share(self) -> float:
        """The share, in [0, 1]."""
        return self.count / self.n


@dataclass(frozen=True)
class Series:
    """Points of one kind in order of x; `name` is the kind."""

    name: str
    points: Sequence[KnownPoint]
    is_board: bool = False


@dataclass(frozen=True)
class KnownBeside:
    """The runs and curves that the site uses, by the digest of a model's weights."""

    runs: Mapping[str, Sequence[StudyRun]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[Curve]] = field(default_factory=dict)

    def runs_of(self, model: ModelInfo) -> list[StudyRun]:
        """Return the study runs of a model."""
        return [
            one
            for one in self.runs.get(model.weights_digest, ())
            if (one.architecture, one.activation) == (model.architecture, model.activation)
            and not one.answers
            and not model.answers
        ]

    def curve_of(self, model: ModelInfo, digest: str, norm: str) -> Curve | None:
        """Return the curve of a model on the images with a digest; None if there is none."""
        wanted = (model.architecture, model.activation, model.answers_digest, digest, norm)
        for one in self.curves.get(model.weights_digest, ()):
            found = one.model
            code = (found.architecture, found.activation, found.answers_digest)
            if (*code, one.dataset.digest, one.norm) == wanted:
                return one
        return None


def read_known(curves: Iterable[Curve], left_out: list[str]) -> KnownBeside:
    """Return the runs of studies that ship with satbench, and `curves`, by weights.

    A run that cannot be read is left out, and `left_out` gets a sentence.
    """
    runs: dict[str, list[StudyRun]] = {}
    for path in sorted((content_folder("leaderboard") / "studies").glob("*.json")):
        try:
            run = read_study_run(path)
        except SatbenchError as error:
            left_out.append(str(error))
            continue
        runs.setdefault(run.weights_digest, []).append(run)
    drawn: dict[str, list[Curve]] = {}
    for curve in curves:
        drawn.setdefault(curve.model.weights_digest, []).append(curve)
    return KnownBeside(runs, drawn)


def by_eps(runs: Sequence[StudyRun], digest: str, norm: str) -> list[Series]:
    """Return robust accuracy against eps for each suite that ran at two or more radii."""
    found: dict[str, dict[float, KnownPoint]] = {}
    for run in runs:
        for one in run.outcomes:
            threat = Threat.parse(one.threat)
            if (one.data_digest, threat.norm) == (digest, norm):
                name = ", then ".join(short_spec(spec) for spec in one.suite)
                eps = float(threat.eps)
                point = KnownPoint(eps, one.verdicts.count("o"), one.n)
                found.setdefault(name, {})[eps] = point
    return [Series(name, _rising(points)) for name, points in found.items() if len(points) > 1]


def by_steps(
    runs: Sequence[StudyRun], records: Sequence[Record], digest: str, threat: Threat
) -> Series | None:
    """Return what plain PGD leaves for each step count; None if there are fewer than two.

    Of several runs with the same step count, the one that leaves fewest images right is used.
    """
    found: dict[float, KnownPoint] = {}
    alone = [
        (run.attack, run.left, len(run.standing)) for run in attack_runs(records) if not run.before
    ]
    for study_run in runs:
        alone += [
            (one.suite[0], one.verdicts.count("o"), one.n)
            for one in study_run.outcomes
            if len(one.suite) == 1
            and one.data_digest == digest
            and Threat.parse(one.threat) == threat
        ]
    for spec, count, n in alone:
        steps = _plain_steps(spec)
        if steps is not None and (steps not in found or count < found[steps].count):
            found[steps] = KnownPoint(steps, count, n)
    return Series("PGD", _rising(found)) if len(found) > 1 else None


def _plain_steps(spec: str) -> int | None:
    """Return the steps of a plain PGD; None for any other attack."""
    try:
        name, arguments = split_spec(spec)
    except SatbenchError:  # of an older protocol
        return None
    steps, _ = arguments.pop("steps", ""), arguments.pop("step", "")
    plain = name == "pgd" and arguments == _PLAIN and steps.isdecimal()
    return int(steps) if plain else None


def _rising(points: Mapping[float, KnownPoint]) -> list[KnownPoint]:
    return [points[x] for x in sorted(points)]
