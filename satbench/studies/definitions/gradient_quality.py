"""Section 3.2, table 1: ReLU with a smooth gradient, and other remedies."""

from __future__ import annotations

from satbench.studies.definitions.shared import EARLIER_STRONGEST
from satbench.studies.design import Arm, Pair, PaperNumbers, Pool, Study, StudyColumn

_SMOOTH = "softplus(10)"
_PGD2 = "pgd(steps=2,step=0.75*eps,restarts=1,start=uniform,keep=last)"

# `2*base` is twice the value of the recipe or --set.
_ARMS: dict[str, dict[str, object]] = {
    "ReLU": {},
    "attack": {"attack_backward": _SMOOTH},
    "update": {"update_backward": _SMOOTH},
    "both": {"attack_backward": _SMOOTH, "update_backward": _SMOOTH},
    "PGD-2": {"attack": _PGD2},
    "twice the epochs": {"epochs": "2*base", "milestones": "2*base"},
    "SILU": {"activation": "silu"},
    "parametric softplus": {"activation": "parametric-softplus"},
}

_OWN = StudyColumn("PGD-50, own gradient", ("pgd-50",))
_SURROGATE = StudyColumn("PGD-50, surrogate gradient", (f"pgd-50(backward={_SMOOTH})",))
_WORSE = StudyColumn("worse of both", worst_of=(_OWN.name, _SURROGATE.name))

# Xie et al., 2020, arXiv:2006.14536, table 1.
_PAPER = PaperNumbers(
    ("attack pass", "update pass", "clean (%)", "PGD-200 (%)", "robust, against ReLU"),
    (
        ("ReLU", "ReLU", "68.8", "33.0", "–"),
        ("parametric softplus", "ReLU", "68.3", "34.5", "+1.5"),
        ("ReLU", "parametric softplus", "69.4", "35.8", "+2.8"),
        ("parametric softplus", "parametric softplus", "68.9", "36.9", "+3.9"),
    ),
    "ResNet-50 on ImageNet, Linf 4/255, one training run each; the gradient of parametric "
    "softplus (α = 10) in the named passes, ReLU forward in all.  The numbers for PGD-2 and for "
    "twice the epochs could not be verified; longer training did not have the effect of the "
    "better gradient.",
)


def study(recipe: str) -> Study:
    """Return the study for a recipe."""
    return Study(
        name="gradient-quality",
        title="Is it ReLU's gradient that weakens adversarial training?",
        section="section 3.2, table 1, figure 1",
        question="ReLU forward, but the gradient of parametric softplus in the attack's passes, in "
        "those of the update, or in both: does the better gradient make the network more robust, "
        "and do a stronger attack or longer training have the same effect?",
        setup="All arms except the last two are ReLU networks when they are evaluated; the smooth "
        "backward is used only in training.  PGD-50 uses the network's own gradient, and then that "
        "of parametric softplus (α = 10) as a surrogate.",
        arms=tuple(Arm(name, {"activation": "relu", **changes}) for name, changes in _ARMS.items()),
        seeds=5,
        evaluations=(_OWN, _SURROGATE, _WORSE, EARLIER_STRONGEST),
        verdict=EARLIER_STRONGEST.name,
        paper_verdict=_OWN.name,
        primary=Pool("smooth gradient in both passes of training", "ReLU", (Pair("both", "ReLU"),)),
        contrasts=tuple(Pair(name, "ReLU") for name in _ARMS if name != "ReLU"),
        paper=_PAPER,
        recipe=recipe,
        measured=True,
        shapes={"ReLU": "relu", "parametric softplus": "parametric-softplus"},
    )
