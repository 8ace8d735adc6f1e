"""What a study is: arms that are trained alike but for one thing, evaluated alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from satbench.leaderboard.study_sheet import Axis, Numbers, Pair, Pool


@dataclass(frozen=True)
class Arm:
    """One row of a study: a way to train, or a model that is given.

    `settings` are settings of a recipe (`satbench.recipes.TrainConfig`) in place of the base
    recipe's, as text or as values.  With `model`, a name that `satbench eval --model` takes,
    nothing is trained, and there is one run instead of one a seed.
    """

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)
    model: str = ""


@dataclass(frozen=True)
class Evaluation:
    """One column: a suite of attacks, by default within the threat model of the training.

    `eps_factor` multiplies the radius.  With `worst_of`, names of other columns, nothing is
    run: an image survives if it does in all of them.
    """

    name: str
    attacks: tuple[str, ...] = ()
    eps_factor: float = 1.0
    worst_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A section of the paper as an experiment.

    `base` are settings over the recipe that all arms share.  Runs of one seed start from the same
    weights where the architecture allows it, and see the data in the same order, so that
    contrasts are paired by seed.  `verdict` is the name of the evaluation that verdicts rest on,
    `paper_verdict` the one that the paper used.  `primary` is tested alone, before the contrasts,
    which are corrected for their number.  A study `about` "gaps" asks first how much of what the
    verdict finds the paper's evaluation leaves undiscovered, one about "convergence" whether the
    attack has converged along the first of its axes; `masked` are the arms that are made to hide
    from an attack by gradient.  `measured` asks for the gradient measures too.
    `axes` are figures of robust accuracy over a number; `shapes` are activations, by the names
    that a figure of them and their derivatives shows; `caveats` say what could be wrong beside
    what holds for every study.
    """

    name: str
    title: str
    section: str
    question: str
    setup: str
    arms: tuple[Arm, ...]
    seeds: int
    evaluations: tuple[Evaluation, ...]
    verdict: str
    paper_verdict: str
    contrasts: tuple[Pair, ...]
    paper: Numbers | None = None
    base: Mapping[str, object] = field(default_factory=dict)
    recipe: str = "fmnist-sat"
    measured: bool = False
    axes: tuple[Axis, ...] = ()
    shapes: Mapping[str, str] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()
    primary: Pool | None = None
    about: Literal["effects", "gaps", "convergence"] = "effects"
    masked: tuple[str, ...] = ()
