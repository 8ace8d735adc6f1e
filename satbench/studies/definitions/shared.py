"""The columns that most studies share."""

from __future__ import annotations

from dataclasses import replace

from satbench.studies.design import Study, StudyColumn

PGD = StudyColumn("PGD-50", ("pgd-50",))
"""The paper's kind of attack: many steps of eps/4 from a random start, untargeted."""

EARLIER = "fast(version=2)"
"""The suite of the studies that were evaluated before version 3, and whose networks are not kept.

Version 3 needs these networks again, so most exploratory studies stay with version 2.
"""

_AUDIT = "audit(sample=20,weakest=10)"

FAST = StudyColumn("fast", ("fast(version=3)",))
"""The suite that approximates AutoAttack's verdict at a small part of its cost (docs/COST.md)."""

STRONGEST = StudyColumn("audited fast", (*FAST.attacks, _AUDIT))
"""The same, then AutoAttack on the survivors of least margin and on a random sample of the others.

An image that it breaks is broken.  The result on the sample bounds how many more it could break.
"""

EARLIER_STRONGEST = replace(STRONGEST, attacks=(EARLIER, _AUDIT))
"""The same with version 2 of `fast`."""

VERDICT = "worse of PGD-50 and audited fast"
WORSE = StudyColumn(VERDICT, worst_of=(PGD.name, STRONGEST.name))
"""The verdict: an image survives if it survives both."""

COLUMNS = (PGD, STRONGEST, WORSE)
EARLIER_COLUMNS = (PGD, EARLIER_STRONGEST, WORSE)

DEFAULT_RECIPE = "fmnist-sat"


def with_current_suite(study: Study) -> Study:
    """Return a study with the current version of `fast` in the place of version 2."""
    current = {EARLIER: FAST.attacks[0]}
    columns = (
        replace(column, attacks=tuple(current.get(attack, attack) for attack in column.attacks))
        for column in study.evaluations
    )
    return replace(study, evaluations=tuple(columns))


def shortened(recipe: str, epochs: int = 2) -> dict[str, object]:
    """Return the settings that shorten the default recipe; other recipes are not shortened.

    They make two passes over the data instead of six, for studies whose many runs would take hours
    on two cores.
    """
    return {"epochs": epochs} if recipe == DEFAULT_RECIPE else {}
