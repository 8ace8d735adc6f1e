"""Colours and markers of all pages: a colour is an activation, a marker is a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from satbench.board.rows import TrainingInfo
from satbench.figures.styles import activation_colour

UNKNOWN = "#c0c0c0"
"""The colour of an activation that has no colour of its own."""

_SHAPES = (  # around (0, 0), each about as large as a circle of radius 5
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "M-4.5 -4.5h9v9h-9z",
    "M0 -6L5.6 4.2H-5.6z",
    "M0 -6.2L6.2 0L0 6.2L-6.2 0z",
    "M0 6L5.6 -4.2H-5.6z",
    "M-2 -5.5h4v3.5h3.5v4h-3.5v3.5h-4v-3.5h-3.5v-4h3.5z",
    "M-5.5 -3L-3 -5.5L0 -2.5L3 -5.5L5.5 -3L2.5 0L5.5 3L3 5.5L0 2.5L-3 5.5L-5.5 3L-2.5 0z",
    "M-6 0L4.2 -5.6V5.6z",
)


@dataclass(frozen=True)
class Drawn:
    """How a model is drawn: the colour of its activation, the outline of its recipe's marker."""

    colour: str
    shape: str


@dataclass(frozen=True)
class Looks:
    """How all models of a site are drawn; `recipes` have the markers in their order."""

    recipes: Sequence[str]

    @classmethod
    def of(cls, trainings: Iterable[TrainingInfo]) -> Looks:
        """Return the looks of models with these kinds of training."""
        return cls(sorted({one.recipe or "" for one in trainings}))

    def mark(self, activation: str, recipe: str | None) -> Drawn:
        """Return how a model with an activation and a recipe is drawn."""
        place = self.recipes.index(recipe or "") if (recipe or "") in self.recipes else 0
        return Drawn(activation_colour(activation) or UNKNOWN, _SHAPES[place % len(_SHAPES)])
