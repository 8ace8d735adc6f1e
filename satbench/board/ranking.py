"""Rankings: models by a paired test, activations by paired training seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np

from satbench.board.rows import COLUMNS, Column, Group, RankSet, Row
from satbench.core.stats.intervals import holm, mcnemar_p_of_counts
from satbench.core.stats.shown import ALPHA, Effect, adjusted, two_way_effect

BASELINE = "relu"

_TESTED: tuple[Column, ...] = tuple(column for column in COLUMNS if column != "gap")


def rank_rows(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """Return the models of one benchmark by best known accuracy, each with its set of ranks.

    The number is how many pairs of models the test distinguishes.

    The exact McNemar test on the same images distinguishes two models at p < 0.05 after Holm's
    correction over all pairs of the benchmark.  A model's best rank is 1 + the number of models
    that are shown to be better, its worst rank the number of models that are not shown to be worse.
    Both are monotone in the order.
    """
    ordered = sorted(rows, key=_order)
    n = len(ordered)
    better, worse = [0] * n, [0] * n
    apart = told_apart(ordered)
    for first, second in apart:
        better[second] += 1
        worse[first] += 1
    best = accumulate((1 + count for count in better), max)
    worst = list(accumulate((n - count for count in reversed(worse)), min))[::-1]
    ranked = [
        replace(row, rank=RankSet(*ends)) for row, *ends in zip(ordered, best, worst, strict=True)
    ]
    return ranked, len(apart)


def told_apart(ordered: Sequence[Row]) -> list[tuple[int, int]]:
    """Return the positions (better, worse) of all pairs that the test distinguishes."""
    if len(ordered) < 2:
        return []
    robust = np.array([row.robust for row in ordered], np.float64)  # exact counts, and faster
    first, second = np.triu_indices(len(ordered), 1)
    # The images that one of two models gets right and the other wrong.
    only = np.rint(robust @ (1 - robust).T).astype(np.int64)
    p_values = holm(mcnemar_p_of_counts(only[first, second], only[second, first]))
    distinct = np.array(p_values) < ALPHA
    return list(zip(first[distinct].tolist(), second[distinct].tolist(), strict=True))


@dataclass(frozen=True)
class Comparison:
    """A group and the ReLU group that differs only in the activation.

    `effects` are the activation's accuracy minus ReLU's, column by column, over the training seeds
    that both have; a column without such a seed has none.  In each column p is corrected for the
    number of comparisons of the benchmark.
    """

    group: Group
    relu: Group
    effects: Mapping[Column, Effect] = field(compare=False)


def compare_with_relu(groups: Sequence[Group]) -> list[Comparison]:
    """Pair each group of another activation with its ReLU twin, in the groups' order.

    Groups of unknown training, and groups without a common training seed, have no twin.
    """
    known = [group for group in groups if group.first.training.is_known]
    twins = {
        _apart_from_activation(group): group
        for group in known
        if group.first.model.activation == BASELINE
    }
    pairs = [
        (group, twins[_apart_from_activation(group)])
        for group in known
        if group.first.model.activation != BASELINE and _apart_from_activation(group) in twins
    ]
    columns = {column: adjusted([_effect(*pair, column) for pair in pairs]) for column in _TESTED}
    compared = [
        Comparison(
            *pair, {name: found for name in _TESTED if (found := columns[name][place]) is not None}
        )
        for place, pair in enumerate(pairs)
    ]
    return [one for one in compared if "best_known" in one.effects]


def _effect(group: Group, relu: Group, column: Column) -> Effect | None:
    ours, theirs = group.masks_by_seed(column), relu.masks_by_seed(column)
    rows = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    return two_way_effect(np.stack(rows)) if rows else None


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
