"""Not in the paper: does the effect of a smooth activation survive another recipe?"""

from __future__ import annotations

from satbench.studies.definitions.shared import EARLIER_COLUMNS, PGD, VERDICT, shortened
from satbench.studies.design import Arm, Pair, PaperNumbers, Pool, Study

_PGD7 = "pgd(steps=7,step=eps/4,restarts=1,start=uniform,keep=last)"

_VARIANTS: dict[str, dict[str, object]] = {
    "recipe as it is": {},
    "weight decay 1e-4": {"weight_decay": "1e-4"},
    "weight decay 2e-3": {"weight_decay": "2e-3"},
    "label smoothing 0.1": {"label_smoothing": "0.1"},
    "clean start 0.2": {"clean_start": "0.2"},
    "batch-norm in eval mode while attacking": {"attack_mode": "eval"},
    "PGD-7": {"attack": _PGD7},
    "passes in bfloat16": {"precision": "bfloat16"},
}

# Facts of other papers, each with its source; none of them is of this scale.
_OTHERS = PaperNumbers(
    ("source", "what it found"),
    (
        (
            "Huang et al., 2023, CVPR (CIFAR, TRADES)",
            "with the weight decay tuned for each activation, smooth ones are no better than "
            "ReLU in most cases; under advanced recipes SILU is",
        ),
        (
            "Pang et al., 2021, ICLR (CIFAR)",
            "weight decay alone changes robustness by more than 7 %",
        ),
        (
            "Singla et al., 2021, ICCV (CIFAR)",
            "low curvature, not smoothness, shrinks the robust generalisation gap; LeakyReLU too",
        ),
        (
            "Bai et al., 2021, NeurIPS (ImageNet, PGD-1, ResNet-50)",
            "ReLU 26.41 %, GELU 35.51 % under AutoAttack",
        ),
        (
            "Salman et al., 2020 (ImageNet, multi-step, ReLU ResNet-50)",
            "34.96 % under AutoAttack: a ReLU network is as robust with a stronger training attack",
        ),
    ),
    "This study tests these findings; data, networks and attacks differ.",
)


def study(recipe: str) -> Study:
    """Return the study for a recipe."""
    arms = [
        Arm(f"{name}, {variant}", {"activation": name.lower(), **settings})
        for variant, settings in _VARIANTS.items()
        for name in ("ReLU", "SILU")
    ]
    return Study(
        name="recipe-sensitivity",
        title="Does the effect survive another recipe?",
        section="not in the paper",
        question="Weight decay, label smoothing, the start of the attack, the mode of its "
        "batch-norm, the number of its steps, and the precision of all passes: does SILU differ "
        "from ReLU for all of them?",
        setup="One setting of the recipe is changed at a time, both for ReLU and for SILU.",
        arms=tuple(arms),
        seeds=3,
        evaluations=EARLIER_COLUMNS,
        verdict=VERDICT,
        paper_verdict=PGD.name,
        primary=Pool(
            "SILU under all variants of the recipe",
            "ReLU",
            tuple(Pair(f"SILU, {variant}", f"ReLU, {variant}") for variant in _VARIANTS),
        ),
        contrasts=tuple(Pair(f"SILU, {variant}", f"ReLU, {variant}") for variant in _VARIANTS),
        paper=_OTHERS,
        base=shortened(recipe),
        recipe=recipe,
    )
