"""Section 4.2, figure 3: smoothness without any change for x < 0."""

from __future__ import annotations

from satbench.studies.definitions.shared import EARLIER_COLUMNS, PGD, VERDICT, shortened
from satbench.studies.design import Arm, Pair, PaperNumbers, Pool, Study

_ARMS = {
    "ReLU": "relu",
    "SmoothReLU, α trained from 400": "smooth-relu",
    "SmoothReLU, α trained from 10": "smooth-relu(alpha=10)",
    "SmoothReLU, α = 400": "smooth-relu(alpha=400,trainable=false)",
    "SmoothReLU, α = 100": "smooth-relu(alpha=100,trainable=false)",
    "SmoothReLU, α = 10": "smooth-relu(alpha=10,trainable=false)",
    "SmoothReLU, α = 1": "smooth-relu(alpha=1,trainable=false)",
    "SILU": "silu",
}

_PAPER = PaperNumbers(
    ("activation", "clean (%)", "PGD-200 (%)"),
    (("ReLU", "68.80", "33.00"), ("SmoothReLU", "69.40", "40.30"), ("SILU", "69.73", "42.30")),
    "ResNet-50 on ImageNet, Linf 4/255, one training run each; α trained from 400, one number per "
    "activation layer.  The paper has no ablation of α.",
)


def study(recipe: str) -> Study:
    """Return the study for a recipe."""
    return Study(
        name="negative-inputs",
        title="Only smoothness: SmoothReLU, which is 0 for all x < 0",
        section="section 4.2, figure 3",
        question="Does smoothness help, or the response to negative inputs that ReLU lacks?  "
        "SmoothReLU is smooth and, like ReLU, 0 for x < 0.",
        setup="SmoothReLU(x) = x − log(αx + 1)/α for x ≥ 0.  α is trained, as in the paper's "
        "code, or fixed; a smaller α is smoother.  The second derivative at 0+ is α.",
        arms=tuple(Arm(name, {"activation": text}) for name, text in _ARMS.items()),
        seeds=3,
        evaluations=EARLIER_COLUMNS,
        verdict=VERDICT,
        paper_verdict=PGD.name,
        primary=Pool(
            "the SmoothReLUs together",
            "ReLU",
            tuple(Pair(name, "ReLU") for name in _ARMS if name.startswith("SmoothReLU")),
        ),
        contrasts=tuple(Pair(name, "ReLU") for name in _ARMS if name != "ReLU"),
        paper=_PAPER,
        base=shortened(recipe),
        recipe=recipe,
        measured=True,
        shapes={
            "ReLU": "relu",
            **{f"SmoothReLU, α = {alpha}": f"smooth-relu(alpha={alpha})" for alpha in (1, 10, 100)},
            "SILU": "silu",
        },
    )
