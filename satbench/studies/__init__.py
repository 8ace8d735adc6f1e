"""The studies: sections of the SAT paper as experiments that one command repeats.

A study is a frozen `Study` (`design`), which a function of the recipe's name returns; a new one is
one module `_NAME.py` and one line in `_registry`.  `plan` turns it into training runs, `runner`
finds or trains and evaluates their models, and `page` writes down what came of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from satbench.studies._evaluations import DEFAULT_RECIPE
from satbench.studies._registry import STUDIES
from satbench.studies.design import Study


def load_study(name: str, recipe: str | None = None) -> Study:
    """Return the study of a name for a recipe, by default that for Fashion-MNIST.

    Raises UnknownNameError with the nearest name; SatbenchError for a recipe that the study has
    no arms for.
    """
    build = cast(Callable[[str], Study], STUDIES[name].load())
    return build(recipe or DEFAULT_RECIPE)


__all__ = ["DEFAULT_RECIPE", "STUDIES", "Study", "load_study"]
