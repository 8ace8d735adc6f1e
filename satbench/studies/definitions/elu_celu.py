"""Section 4.3, table 2: ELU against CELU."""

from __future__ import annotations

from satbench.studies.definitions.shared import EARLIER_COLUMNS, PGD, VERDICT, shortened
from satbench.studies.design import Arm, Axis, Line, Pair, PaperNumbers, Pool, Study

ALPHAS = ("1", "1.2", "1.4", "1.6", "1.8", "2")

_PAPER = PaperNumbers(
    ("what", "the paper"),
    (
        ("α", "1.0, 1.2, 1.4, 1.6, 1.8, 2.0 for both"),
        ("finding", "ELU, whose slope jumps at 0 unless α = 1, is the less robust the larger α"),
        ("", "CELU, smooth for every α, stays near the level of α = 1"),
    ),
    "The numbers of table 2 could not be verified, so none is shown.",
)


def study(recipe: str) -> Study:
    """Return the study for a recipe."""
    return Study(
        name="elu-celu",
        title="ELU against CELU: the same shape with and without a kink",
        section="section 4.3, table 2",
        question="ELU(α) has a kink at 0 unless α = 1, and CELU(α) never has one.  Does this make "
        "ELU less robust, and more so for larger α?",
        setup="ELU(x) = α(exp(x) − 1) and CELU(x) = α(exp(x/α) − 1) for x < 0; both are x for "
        "x ≥ 0.  At α = 1 they are the same function, so these two arms are a check.",
        arms=tuple(
            Arm(f"{name}({alpha})", {"activation": f"{name.lower()}(alpha={alpha})"})
            for name in ("ELU", "CELU")
            for alpha in ALPHAS
        ),
        seeds=3,
        evaluations=EARLIER_COLUMNS,
        verdict=VERDICT,
        paper_verdict=PGD.name,
        primary=Pool(
            "CELU(α) for all α > 1",
            "ELU(α)",
            tuple(Pair(f"CELU({alpha})", f"ELU({alpha})") for alpha in ALPHAS if float(alpha) > 1),
        ),
        contrasts=tuple(Pair(f"CELU({alpha})", f"ELU({alpha})") for alpha in ALPHAS),
        paper=_PAPER,
        base=shortened(recipe),
        recipe=recipe,
        measured=True,
        axes=(Axis("α", tuple(_line(name) for name in ("ELU", "CELU"))),),
        shapes={
            f"{name}({alpha})": f"{name.lower()}(alpha={alpha})"
            for name in ("ELU", "CELU")
            for alpha in ("1", "2")
        },
    )


def _line(name: str) -> Line:
    return Line(name, tuple((float(alpha), f"{name}({alpha})") for alpha in ALPHAS))
