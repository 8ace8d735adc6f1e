"""The design of a study: arms whose training differs in one thing, with the same evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from satbench.core.errors import SatbenchError


@dataclass(frozen=True)
class Arm:
    """One row of a study: a way to train, or a given model.

    `settings` replace settings of the recipe (`satbench.recipes.TrainConfig`), as text or values.
    With `model`, a name that `satbench eval --model` takes, nothing is trained, and there is one
    run instead of one per seed.
    """

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)
    model: str = ""


@dataclass(frozen=True)
class Sweep:
    """Values of a setting, from which each arm gets the best by held-out robust accuracy.

    Each arm is trained with each value; `seeds` are those for the choice, empty for the
    seeds of the study.
    """

    key: str
    values: tuple[float, ...]
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Choice:
    """The chosen value of a sweep for an arm, and the scores of all values, in the sweep's order.

    `setting` is the text `KEY=VALUE`.  A score is the mean accuracy under PGD-10 on held-out
    training images, in [0, 1].
    """

    arm: str
    value: float
    setting: str
    scores: tuple[float, ...]


@dataclass(frozen=True)
class StudyColumn:
    """One column: a suite of attacks, by default with the threat model of the training.

    `eps_factor` multiplies the radius.  With `worst_of`, names of other columns, nothing is run: an
    image survives if it survives in all of them.
    """

    name: str
    attacks: tuple[str, ...] = ()
    eps_factor: float = 1.0
    worst_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A question: is `arm` more robust than `baseline`, seed by seed?"""

    arm: str
    baseline: str


@dataclass(frozen=True)
class Pool:
    """The primary question: are the arms of some pairs, on average, more robust?

    `name` and `baseline` describe the arms and their baselines in words.  Raises SatbenchError for
    no pair, or a repeated one.
    """

    name: str
    baseline: str
    pairs: tuple[Pair, ...]

    def __post_init__(self) -> None:
        if not self.pairs or len(set(self.pairs)) < len(self.pairs):
            raise SatbenchError(
                f"expected for the question {self.name!r} one or more pairs, each once; "
                f"got {len(self.pairs)}, {len(set(self.pairs))} of them different"
            )

    @property
    def arm(self) -> str:
        """The name, used like the arm of a pair."""
        return self.name


@dataclass(frozen=True)
class PaperNumbers:
    """The paper's numbers: shown apart from ours.  Cells are markdown."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


@dataclass(frozen=True)
class Line:
    """A line of a figure: for each position on the x axis the name of an arm or a column."""

    name: str
    places: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Axis:
    """Lines of robust accuracy against a number.

    `over` says whether the lines name arms or columns.  For arms, the verdict and the paper's
    column are shown; for columns, a line's `name` is its arm.
    """

    label: str
    lines: tuple[Line, ...]
    over: Literal["arms", "columns"] = "arms"
    log: bool = False


@dataclass(frozen=True)
class Study:
    """A section of the paper as an experiment.

    `base` are changes of the recipe that all arms share.  Runs of one seed start from the same
    weights if the architecture allows it, and see the data in the same order, so that contrasts are
    paired by seed.  `verdict` is the name of the evaluation for verdicts, `paper_verdict` the one
    that the paper used.  `primary` is tested by itself, before the contrasts, which are corrected
    for their number.  A study `about` "gaps" first asks how much the paper's evaluation misses of
    what the verdict finds; one about "convergence" asks whether the attack has converged along its
    first axis.  `masked` are arms made to resist gradient attacks.  `measured` adds the gradient
    measures.  `registered` says that the plan was committed before the first run.  The seeds are
    `seeds` numbers from `first_seed` on; `n_examples` is the number of test images.  `axes` are
    figures of robust accuracy against a number; `shapes` are activations by name, for a figure of
    them and their derivatives; `caveats` are caveats besides those of every study.
    """

    name: str
    title: str
    section: str
    question: str
    setup: str
    arms: tuple[Arm, ...]
    seeds: int
    evaluations: tuple[StudyColumn, ...]
    verdict: str
    paper_verdict: str
    contrasts: tuple[Pair, ...]
    paper: PaperNumbers | None = None
    base: Mapping[str, object] = field(default_factory=dict)
    recipe: str = "fmnist-sat"
    measured: bool = False
    axes: tuple[Axis, ...] = ()
    shapes: Mapping[str, str] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()
    primary: Pool | None = None
    about: Literal["effects", "gaps", "convergence"] = "effects"
    masked: tuple[str, ...] = ()
    registered: bool = False
    first_seed: int = 0
    n_examples: int = 500

    @property
    def default_seeds(self) -> tuple[int, ...]:
        """The seeds of the study, in order."""
        return tuple(range(self.first_seed, self.first_seed + self.seeds))

    def __post_init__(self) -> None:
        arms, columns = [one.name for one in self.arms], [one.name for one in self.evaluations]
        for names, what in ((arms, "arms"), (columns, "columns")):
            if len(set(names)) < len(names):
                raise SatbenchError(f"expected {what} of different names, got {', '.join(names)}")
        pooled = self.primary.pairs if self.primary else ()
        asked = [name for pair in (*self.contrasts, *pooled) for name in (pair.arm, pair.baseline)]
        worst = [name for column in self.evaluations for name in column.worst_of]
        _check((*asked, *self.masked), arms, "arms")
        if self.primary and self.primary.name in arms:
            raise SatbenchError(
                f"expected a different name for the primary question, got that of the arm "
                f"{self.primary.name!r}"
            )
        _check((self.verdict, self.paper_verdict, *worst), columns, "columns")
        for axis in self.axes:
            places = [name for line in axis.lines for _, name in line.places]
            _check(places, arms if axis.over == "arms" else columns, axis.over)
            if axis.over == "columns":
                _check([line.name for line in axis.lines], arms, "arms")

    @property
    def questions(self) -> tuple[Pool | Pair, ...]:
        """The primary question, if there is one, and the single contrasts."""
        return (*filter(None, (self.primary,)), *self.contrasts)


def _check(asked: Sequence[str], known: Sequence[str], what: str) -> None:
    for name in asked:
        if name not in known:
            raise SatbenchError(f"expected one of the {what} {', '.join(known)}; got {name!r}")
