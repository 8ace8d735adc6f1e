"""The columns that most studies share."""

from __future__ import annotations

from satbench.studies.design import StudyColumn

PGD = StudyColumn("PGD-50", ("pgd-50",))
"""The paper's kind of attacker: many steps of eps/4 from a random start, untargeted."""

FAST = StudyColumn("fast", ("fast",))
"""The suite that comes to AutoAttack's verdict at a small part of its cost (docs/COST.md)."""

STRONGEST = StudyColumn("audited fast", ("fast", "audit(sample=20,weakest=10)"))
"""The same, and AutoAttack on the survivors of least margin and on a random sample of the others:
what it breaks is broken, and from what it breaks of the sample follows what it might still break.
"""

VERDICT = "worse of PGD-50 and audited fast"
WORSE = StudyColumn(VERDICT, worst_of=(PGD.name, STRONGEST.name))
"""The verdict: an image survives if it does under both."""

COLUMNS = (PGD, STRONGEST, WORSE)

DEFAULT_RECIPE = "fmnist-sat"


def shortened(recipe: str, epochs: int = 2) -> dict[str, object]:
    """Return the settings that shorten the default recipe; other recipes stay whole.

    Two passes over the data instead of six, where the many runs of a study would take hours on
    two cores.
    """
    return {"epochs": epochs} if recipe == DEFAULT_RECIPE else {}
