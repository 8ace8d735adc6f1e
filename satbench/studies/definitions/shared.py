"""The columns that most studies share."""

from __future__ import annotations

from dataclasses import replace

from satbench.studies.design import StudyColumn

PGD = StudyColumn("PGD-50", ("pgd-50",))
"""The paper's kind of attack: many steps of eps/4 from a random start, untargeted."""

_EXPLORATORY, _REGISTERED = "fast(version=2)", "fast(version=3)"
"""The versions of `fast` in the exploratory and in the pre-registered studies."""

_AUDIT = "audit(sample=20,weakest=10)"

FAST = StudyColumn("fast", (_EXPLORATORY,))
"""The suite that approximates AutoAttack's verdict at a small part of its cost (docs/COST.md)."""

STRONGEST = StudyColumn("audited fast", (_EXPLORATORY, _AUDIT))
"""The same, then AutoAttack on the survivors of least margin and on a random sample of the others.

An image that it breaks is broken.  The result on the sample bounds how many more it could break.
"""

VERDICT = "worse of PGD-50 and audited fast"
WORSE = StudyColumn(VERDICT, worst_of=(PGD.name, STRONGEST.name))
"""The verdict: an image survives if it survives both."""

COLUMNS = (PGD, STRONGEST, WORSE)
REGISTERED = (PGD, replace(STRONGEST, attacks=(_REGISTERED, _AUDIT)), WORSE)
"""The columns of the pre-registered studies, which are evaluated with a later version of `fast`."""

DEFAULT_RECIPE = "fmnist-sat"


def shortened(recipe: str, epochs: int = 2) -> dict[str, object]:
    """Return the settings that shorten the default recipe; other recipes are not shortened.

    They make two passes over the data instead of six, for studies whose many runs would take hours
    on two cores.
    """
    return {"epochs": epochs} if recipe == DEFAULT_RECIPE else {}
