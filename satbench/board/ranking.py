"""Who is better than whom: models by a paired test, activations by their paired training seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

import numpy as np

from satbench.board.rows import Column, Group, Row
from satbench.core.intervals import holm, mcnemar_p, paired_t_interval

ALPHA = 0.05

BASELINE = "relu"


def rank_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the models of one benchmark by best known accuracy, each with its rank.

    The rank is 1 + the number of models that are better by the exact McNemar test on the same
    images, at p < 0.05 after Holm's correction over all pairs of the benchmark.
    """
    ordered = sorted(rows, key=_order)
    robust = [np.asarray(row.robust) for row in ordered]
    pairs = list(combinations(range(len(ordered)), 2))
    p_values = holm([mcnemar_p(robust[better], robust[worse]) for better, worse in pairs])
    beaten = Counter(worse for (_, worse), p in zip(pairs, p_values, strict=True) if p < ALPHA)
    return [replace(row, rank=1 + beaten[place]) for place, row in enumerate(ordered)]


@dataclass(frozen=True)
class Difference:
    """An activation's accuracy minus ReLU's: the mean over `seeds` pairs, and its 95 % interval.

    Shares of the images; the interval is None for a single pair.
    """

    mean: float
    interval: tuple[float, float] | None
    seeds: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class Comparison:
    """A group and the ReLU group that differs from it in the activation alone."""

    group: Group
    relu: Group

    def difference(self, column: Column) -> Difference | None:
        """Return the difference of a column over the seeds that both have; None for no seed."""
        group, relu = self.group.by_seed(column), self.relu.by_seed(column)
        differences = [group[seed] - relu[seed] for seed in group if seed in relu]
        if not differences:
            return None
        interval = paired_t_interval(differences) if len(differences) > 1 else None
        return Difference(fmean(differences), interval, len(differences))


def compare_with_relu(groups: Sequence[Group]) -> list[Comparison]:
    """Pair each group of another activation with its ReLU twin, in the groups' order.

    Groups of unknown training have no twin; nor has a pair that shares no training seed.
    """
    known = [group for group in groups if group.first.training.is_known]
    twins = {
        _apart_from_activation(group): group
        for group in known
        if group.first.model.activation == BASELINE
    }
    pairs = (
        Comparison(group, twins[_apart_from_activation(group)])
        for group in known
        if group.first.model.activation != BASELINE and _apart_from_activation(group) in twins
    )
    return [pair for pair in pairs if pair.difference("best_known") is not None]


def _order(row: Row) -> tuple[int, str, str, str, str]:
    model = row.model
    return (
        -row.best_known.count,
        model.name,
        model.weights_digest,
        model.architecture,
        model.activation,
    )


def _apart_from_activation(group: Group) -> tuple[str | None, ...]:
    training = group.first.training
    return group.first.model.architecture, training.recipe, training.threat, training.attack
