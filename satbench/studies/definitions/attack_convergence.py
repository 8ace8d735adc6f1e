"""Sanity checks: more steps find more, and a large enough ball leaves nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from satbench.studies.definitions.shared import DEFAULT_RECIPE, FAST, PGD, STRONGEST
from satbench.studies.design import Arm, Axis, Line, Pair, PaperNumbers, Pool, Study, StudyColumn

STEPS = (1, 2, 5, 10, 20, 50, 100, 200)
FACTORS = (0.5, 1, 1.5, 2, 3, 5)

_PAPER = PaperNumbers(
    ("ResNet-50 on ImageNet", "PGD-10 (%)", "PGD-20 (%)", "PGD-50 (%)"),
    (
        ("ReLU", "35.3", "33.7", "33.1"),
        ("SILU", "43.0", "42.2", "41.9"),
        ("ELU", "41.6", "40.9", "40.7"),
        ("GELU", "42.6", "41.8", "41.5"),
        ("SmoothReLU", "41.3", "40.4", "40.1"),
    ),
    "The authors' own evaluation of their released models, Linf 4/255, step 1/255.",
)

_ARMS: dict[str, dict[str, object]] = {
    "ReLU": {"activation": "relu"},
    "parametric softplus": {"activation": "parametric-softplus"},
    "SILU": {"activation": "silu"},
}
_PGD2 = "pgd(steps=2,step=0.75*eps,restarts=1,start=uniform,keep=last)"


def study(recipe: str) -> Study:
    """Return the study for a recipe."""
    arms = [Arm(name, settings) for name, settings in _ARMS.items()]
    if recipe == DEFAULT_RECIPE:
        arms.append(Arm("ReLU, PGD-2", {"activation": "relu", "attack": _PGD2}))
    radii = {factor: _fast(factor).name for factor in FACTORS}
    steps = [_steps(k) for k in STEPS if k != 50]
    return Study(
        name="attack-convergence",
        title="Does the attack converge, and does robustness end?",
        section="sanity checks",
        question="How many steps does PGD need until more steps find nothing new, and does every "
        "model have accuracy 0 within a large enough ball, as it must?",
        setup="PGD from a random start with steps of eps/4, or of eps/k for k steps if k is less "
        "than four; and the suite fast within multiples of the eps of the training.  Within "
        "Linf 0.5 every image can be made the same grey, so that no model can stay above chance.",
        arms=tuple(arms),
        seeds=3,
        evaluations=(
            *sorted((*steps, PGD), key=lambda one: int(one.name.split("-")[1])),
            *(_fast(factor) for factor in FACTORS),
            STRONGEST,
        ),
        verdict=STRONGEST.name,
        paper_verdict=PGD.name,
        primary=Pool(
            "SILU and parametric softplus together",
            "ReLU",
            (Pair("SILU", "ReLU"), Pair("parametric softplus", "ReLU")),
        ),
        contrasts=tuple(Pair(arm.name, "ReLU") for arm in arms if arm.name != "ReLU"),
        paper=_PAPER,
        recipe=recipe,
        about="convergence",
        axes=(
            Axis("steps of PGD", _lines(arms, {k: f"PGD-{k}" for k in STEPS}), "columns", True),
            Axis("eps of the attack / eps of training", _lines(arms, radii), "columns"),
        ),
    )


def _lines(arms: Sequence[Arm], columns: Mapping[float, str]) -> tuple[Line, ...]:
    return tuple(Line(arm.name, tuple(columns.items())) for arm in arms)


def _steps(k: int) -> StudyColumn:
    step = "eps" if k == 1 else f"eps/{min(k, 4)}"
    return StudyColumn(f"PGD-{k}", (f"pgd(steps={k},step={step})",))


def _fast(factor: float) -> StudyColumn:
    if factor == 1:
        return FAST
    return replace(FAST, name=f"fast at {factor:g} eps", eps_factor=factor)
