"""Section 4.1, figure 2: all activations, forward and backward."""

from __future__ import annotations

from satbench.studies.definitions.shared import EARLIER_COLUMNS, PGD, VERDICT
from satbench.studies.design import Arm, Pair, PaperNumbers, Pool, Study

_ARMS = {
    "ReLU": "relu",
    "softplus": "softplus",
    "parametric softplus": "parametric-softplus",
    "SILU": "silu",
    "GELU": "gelu",
    "ELU": "elu",
    "CELU(2)": "celu(alpha=2)",
    "SmoothReLU": "smooth-relu",
    "Mish": "mish",
    "LeakyReLU": "leaky-relu",
}

_SMOOTH = ("softplus", "parametric softplus", "SILU", "GELU", "ELU", "SmoothReLU")
"""Those of the paper's figure."""

# Xie et al., 2020, arXiv:2006.14536, figure of section 4.1; decoded from the vector file in the
# history of the paper's own repository.
_PAPER = PaperNumbers(
    ("activation", "clean (%)", "PGD-200 (%)", "robust, against ReLU"),
    (
        ("ReLU", "68.80", "33.00", "–"),
        ("softplus", "68.36", "40.00", "+7.00"),
        ("parametric softplus", "68.80", "38.70", "+5.70"),
        ("SmoothReLU", "69.40", "40.30", "+7.30"),
        ("GELU", "69.95", "41.65", "+8.65"),
        ("ELU", "69.20", "41.70", "+8.70"),
        ("SILU", "69.73", "42.30", "+9.30"),
    ),
    "ResNet-50 on ImageNet, Linf 4/255, one training run each.  CELU, Mish and LeakyReLU are not "
    "in the figure.",
)


def study(recipe: str) -> Study:
    """Return the study for a recipe."""
    return Study(
        name="activations",
        title="Smooth activations in single-step adversarial training",
        section="section 4.1, figure 2",
        question="Does a smooth activation, forward and backward, make a network more robust than "
        "its ReLU twin, and what does it cost in accuracy?",
        setup="All twins are trained by the same recipe, with the same initial weights per seed "
        "and the data in the same order; only the activation differs.  LeakyReLU is the control: "
        "it is not smooth, but its gradient is not 0 for x < 0.",
        arms=tuple(Arm(name, {"activation": text}) for name, text in _ARMS.items()),
        seeds=5,
        evaluations=EARLIER_COLUMNS,
        verdict=VERDICT,
        paper_verdict=PGD.name,
        primary=Pool(
            "the paper's six smooth activations together",
            "ReLU",
            tuple(Pair(name, "ReLU") for name in _SMOOTH),
        ),
        contrasts=tuple(Pair(name, "ReLU") for name in _ARMS if name != "ReLU"),
        paper=_PAPER,
        recipe=recipe,
        measured=True,
        shapes=_ARMS,
    )
