"""Studies: sections of the SAT paper as experiments that one command runs.

A study is a frozen `Study` (`design`), returned by a function of the recipe's name.  A new one
needs a module in `definitions` and a line in `registry`.  `plan` turns it into training runs,
`runner` finds or trains their models and evaluates them, `effects` compares the arms, and `pages`
writes the page and its figures from the kept runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from satbench.studies.definitions.shared import DEFAULT_RECIPE, with_current_suite
from satbench.studies.design import Study
from satbench.studies.registry import STUDIES


def load_study(name: str, recipe: str | None = None) -> Study:
    """Return the study with a name for a recipe, by default the recipe for Fashion-MNIST.

    Raises UnknownNameError with the nearest name, and SatbenchError for a recipe without arms in
    the study.
    """
    build = cast(Callable[[str], Study], STUDIES[name].load())
    study = build(recipe or DEFAULT_RECIPE)
    return study if study.recipe == DEFAULT_RECIPE else with_current_suite(study)


__all__ = ["DEFAULT_RECIPE", "STUDIES", "Study", "load_study"]
