"""Decide which differences are shown: paired, with their noise, corrected for their number.

Boards, studies and the README all use this module.

A difference has two sources of noise: the seeds, which are few, and the test images, which are the
same for all seeds and both arms.  An interval over the seeds only treats these images as if there
were no others: in simulations with both kinds of noise it contains the truth in 83 to 92 % of
cases.  An interval that is clustered both ways, with Student's t at seeds − 1 degrees of freedom,
contains it in 97 to 100 % (`benchmarks/coverage.py`).  Satterthwaite's degrees of freedom (1946)
would be less cautious, but not cautious enough in the far tail with three seeds, and corrections
for many contrasts use such p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from satbench.core.errors import SatbenchError
from satbench.core.stats.intervals import CONFIDENCE, holm, paired_t_interval

ALPHA = 0.05
"""An effect is shown only if p, corrected for the number of questions, is below this limit."""

Verdict = Literal["more robust", "less robust", "not shown to differ", "too few seeds"]


@dataclass(frozen=True)
class Effect:
    """A mean difference between two arms over `seeds` paired seeds, as a share of images.

    `interval` is the 95 % interval over seeds and images, `by_seed` the one over seeds only; both,
    and `p`, are None for fewer than two seeds.  `adjusted` is `p` corrected for the number of
    contrasts that the study makes in this column, None if it is the only test.
    """

    mean: float
    seeds: int
    interval: tuple[float, float] | None = None
    by_seed: tuple[float, float] | None = None
    p: float | None = None
    adjusted: float | None = None

    @property
    def counted(self) -> float | None:
        """The p that counts: the adjusted one, if there is one."""
        return self.p if self.adjusted is None else self.adjusted

    @property
    def is_shown(self) -> bool:
        """Whether a difference is shown, in either direction."""
        return self.verdict in ("more robust", "less robust")

    @property
    def verdict(self) -> Verdict:
        """The verdict: shown only if the interval excludes 0 and `counted` < 0.05."""
        if self.interval is None:
            return "too few seeds"
        low, high = self.interval
        if low <= 0 <= high or self.counted is None or self.counted >= ALPHA:
            return "not shown to differ"
        return "more robust" if low > 0 else "less robust"


def two_way_effect(differences: NDArray[np.float64]) -> Effect:
    """Return the mean of a matrix of differences, (S, N) -> effect, one row a seed.

    The variance of the mean is clustered by seed and by image: V_seed + V_image − V_cell, each
    with its correction G / (G − 1) for few clusters (Cameron, Gelbach & Miller, 2011, "Robust
    inference with multiway clustering", eq. 2.11), but no less than the larger of the first two.
    p is two-sided; of a matrix of equal numbers it is 1 if they are 0, else 0.  Raises
    SatbenchError unless S ≥ 1 and N ≥ 2.
    """
    if differences.ndim != 2 or differences.shape[0] < 1 or differences.shape[1] < 2:
        raise SatbenchError(f"expected a seed or more and two images, got {differences.shape}")
    seeds, images = differences.shape
    mean = float(differences.mean())
    if seeds < 2:
        return Effect(mean, seeds)
    means = differences.mean(axis=1)
    by_seed = float(means.var(ddof=1)) / seeds
    by_image = float(differences.mean(axis=0).var(ddof=1)) / images
    by_cell = float(differences.var(ddof=1)) / differences.size
    error = sqrt(max(by_seed + by_image - by_cell, by_seed, by_image))
    from scipy.special import stdtr, stdtrit  # Student's distribution, and inverted

    half = float(stdtrit(seeds - 1, (1 + CONFIDENCE) / 2)) * error
    p = 2 * float(stdtr(seeds - 1, -abs(mean) / error)) if error else float(mean == 0)
    return Effect(mean, seeds, (mean - half, mean + half), paired_t_interval(means.tolist()), p)


def least_t(seeds: int, contrasts: int) -> float:
    """Return how many standard errors the largest of some effects needs to be shown.

    Raises SatbenchError for fewer than two seeds or no contrast.
    """
    if seeds < 2 or contrasts < 1:
        raise SatbenchError(f"expected two seeds and a contrast, got {seeds} and {contrasts}")
    from scipy.special import stdtrit

    return -float(stdtrit(seeds - 1, (1 - CONFIDENCE) / 2 / contrasts))


def adjusted(effects: Sequence[Effect | None], planned: bool = False) -> list[Effect | None]:
    """Return the effects that have a p, with p corrected for their number (Holm).

    If the effects were `planned`, those without a p count in their number too, as if their p were
    1.  So a part of a plan is not corrected for less than the whole.
    """
    tested = [effect.p for effect in effects if effect and effect.p is not None]
    missing = [1.0] * (len(effects) - len(tested)) if planned else []
    after = iter(holm([*tested, *missing]))
    return [
        replace(effect, adjusted=next(after)) if effect and effect.p is not None else effect
        for effect in effects
    ]
