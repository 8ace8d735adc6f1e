"""The studies: sections of the SAT paper as experiments that one command repeats.

A study is a frozen `Study` (`design`), which a function of the recipe's name returns; a new one is
one module in `definitions` and one line in `registry`.  `plan` turns it into training runs,
`runner` finds or trains their models and evaluates them, `effects` compares the arms, and `pages`
writes the page and its figures from the runs that are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from satbench.studies.definitions.shared import DEFAULT_RECIPE
from satbench.studies.design import Study
from satbench.studies.registry import STUDIES


def load_study(name: str, recipe: str | None = None) -> Study:
    """Return the study of a name for a recipe, by default that for Fashion-MNIST.

    Raises UnknownNameError with the nearest name; SatbenchError for a recipe that the study has
    no arms for.
    """
    build = cast(Callable[[str], Study], STUDIES[name].load())
    return build(recipe or DEFAULT_RECIPE)


__all__ = ["DEFAULT_RECIPE", "STUDIES", "Study", "load_study"]
