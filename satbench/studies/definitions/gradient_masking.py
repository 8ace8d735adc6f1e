"""Related work: gradient masking, and the attacks that see through it."""

from __future__ import annotations

from satbench.studies.definitions.shared import DEFAULT_RECIPE, PGD, STRONGEST
from satbench.studies.design import Arm, Pair, Pool, Study, StudyColumn

_SURROGATE = StudyColumn("PGD-50, surrogate gradient", ("pgd(steps=50,backward=softplus(10))",))
_TRANSFER = StudyColumn("transfer", ("transfer",))
_DISTILLED = StudyColumn("distilled", ("distilled",))
_SQUARE = StudyColumn("square", ("square(queries=1000)",))
_ALL = (PGD, _SURROGATE, _TRANSFER, _DISTILLED, _SQUARE, STRONGEST)
_WORST = StudyColumn("worst of all", worst_of=tuple(one.name for one in _ALL))

_TRAINED: dict[str, dict[str, object]] = {
    "ReLU": {"activation": "relu"},
    "parametric softplus": {"activation": "parametric-softplus"},
    "SILU": {"activation": "silu"},
}
_PGD2 = "pgd(steps=2,step=0.75*eps,restarts=1,start=uniform,keep=last)"
_MASKED = ("hard_labels", "rounding", "saturated", "noisy", "detached")


def study(recipe: str) -> Study:
    """Return the study for a recipe."""
    arms = [Arm(name, settings) for name, settings in _TRAINED.items()]
    if recipe == DEFAULT_RECIPE:
        arms.append(Arm("ReLU, PGD-2", {"activation": "relu", "attack": _PGD2}))
        arms.append(Arm("ReLU, not robust", model="fmnist-standard-tiny-relu-s0"))
        arms.extend(
            Arm(_masked(name), model=f"satbench.model_zoo.masked:{name}") for name in _MASKED
        )
    return Study(
        name="gradient-masking",
        title="Gradient masking: what a white-box attack does not see",
        section="related work",
        question="Is the robustness real, or is the gradient only useless?  An attack without the "
        "model's gradient must not find what a white-box attack misses.",
        setup="White-box PGD with the model's own gradient and with that of a smooth surrogate; "
        "images made on other models (transfer); images made on a student that was trained only on "
        "the model's labels (distilled; Papernot et al., 2017, arXiv:1602.02697); random "
        "search (Square); and the suite fast.  The masked models are one network without any "
        "robustness behind five kinds of masking (satbench.model_zoo.masked).",
        arms=tuple(arms),
        seeds=3,
        evaluations=(*_ALL, _WORST),
        verdict=_WORST.name,
        paper_verdict=PGD.name,
        primary=Pool(
            "SILU and parametric softplus together",
            "ReLU",
            (Pair("SILU", "ReLU"), Pair("parametric softplus", "ReLU")),
        ),
        contrasts=tuple(Pair(name, "ReLU") for name in _TRAINED if name != "ReLU"),
        recipe=recipe,
        about="gaps",
        masked=tuple(map(_masked, _MASKED)) if recipe == DEFAULT_RECIPE else (),
    )


def _masked(name: str) -> str:
    return f"masked: {name.replace('_', ' ')}"
