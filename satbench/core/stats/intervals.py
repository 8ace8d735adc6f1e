"""Intervals and tests for comparing numbers.

The distributions are from scipy.special. scipy.stats has them too, but its import takes 0.8 s; that
of scipy.special takes 0.25 s, and is made where it is needed, because Wilson's interval does not
need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist, fmean, stdev

import numpy as np
from numpy.typing import NDArray

from satbench.core.errors import SatbenchError

CONFIDENCE = 0.95

_NORMAL = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

_ROUNDING = 1e-12  # so that a probability of exactly 5 % does not count as less


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share, its ends in [0, 1].

    Wilson, 1927, "Probable inference, the law of succession, and statistical inference".
    Raises SatbenchError unless 0 ≤ successes ≤ n and n ≥ 1.
    """
    if not (n >= 1 and 0 <= successes <= n):
        raise SatbenchError(f"expected a count among n ≥ 1 images, got {successes} of {n}")
    share, square = successes / n, _NORMAL**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = _NORMAL * sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def confidence_sequence(successes: int, n: int, population: int) -> tuple[float, float]:
    """Return a 95 % interval for a population's share that is valid at all n together.

    `successes` of the first `n` images of a random order of `population` succeeded.  The
    prior-posterior-ratio martingale for sampling without replacement, with a uniform prior
    (Waudby-Smith & Ramdas, 2020, "Confidence sequences for sampling without replacement",
    arXiv:2006.04347, theorem 1): it keeps all counts K whose prior is less than 20 times the
    posterior.  With 95 % probability, the intervals of all n contain the share.  Raises
    SatbenchError unless 0 ≤ successes ≤ n ≤ population and population ≥ 1.
    """
    if not (population >= 1 and 0 <= successes <= n <= population):
        raise SatbenchError(
            f"expected a count among n of a population, got {successes} of {n} of {population}"
        )
    from scipy.special import betaln

    counts = np.arange(successes, population - (n - successes) + 1)
    # Uniform prior: 1 / (population + 1).  The rest of the successes is beta-binomial.
    rest, unseen = counts - successes, population - n
    ways = -np.log(unseen + 1) - betaln(unseen - rest + 1, rest + 1)
    posterior = (
        ways
        + betaln(counts + 1, population - counts + 1)
        - betaln(1 + successes, 1 + n - successes)
    )
    ratio = -np.log(population + 1) - posterior
    kept = counts[ratio < np.log(1 / (1 - CONFIDENCE))]
    return float(kept[0] / population), float(kept[-1] / population)


def unseen_bound(broken: int, sampled: int, left: int) -> int:
    """Return an upper bound on the breakable ones of `left` images, with 95 % confidence.

    Of a random sample of `sampled` of them, `broken` were broken.  The bound is the exact one-sided
    bound for sampling without replacement: the largest count for which so few broken ones in the
    sample, or fewer, have at least 5 % probability (hypergeometric; Clopper & Pearson, 1934, for
    its binomial form).  Raises SatbenchError unless 0 ≤ broken ≤ sampled ≤ left.
    """
    if not 0 <= broken <= sampled <= left:
        raise SatbenchError(f"expected a sample's count, got {broken} of {sampled} of {left}")
    counts = np.arange(broken, left - (sampled - broken) + 1)
    probable = _as_few(broken, sampled, left, counts) >= 1 - CONFIDENCE - _ROUNDING
    return int(counts[probable][-1])


def _as_few(broken: int, sampled: int, left: int, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the probability of so few broken in a sample, if `counts` (C,) of all are."""
    from scipy.special import gammaln

    def ways(of: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the logarithm of the binomial coefficient, -inf where it is 0."""
        possible = (chosen >= 0) & (chosen <= of)
        some = np.where(possible, chosen, 0)
        logs = gammaln(of + 1) - gammaln(some + 1) - gammaln(of - some + 1)
        return np.where(possible, logs, -np.inf)

    found, all_counts = np.arange(broken + 1)[:, None], counts[None, :]
    logs = ways(all_counts, found) + ways(left - all_counts, sampled - found)
    total = ways(np.array([left]), np.array([sampled]))
    probability: NDArray[np.float64] = np.exp(logs - total).sum(axis=0)
    return probability


def pooled_unseen_bound(samples: Sequence[tuple[int, int, int]]) -> float:
    """Return an upper bound on the breakable images outside some samples, with 95 % confidence.

    Each sample is (broken, sampled, left): of a random `sampled` of `left` images, `broken` were
    broken.  The samples are independent, but their shares of breakable images need not be equal: of
    all m sampled images, the number broken is then a sum of independent trials (Vatutin &
    Mikhailov, 1982, "Limit theorems for the number of empty cells"), whose lower tail below its
    mean μ − 1 is no heavier than the binomial one of the mean share (Hoeffding, 1956, "On the
    distribution of the number of successes in independent trials", theorem 4).  So the bound on μ
    is that of Clopper & Pearson (1934), at least the number broken + 1, and one sampled image
    counts for at most the largest left / sampled.  A sample of all images leaves none out.  Raises
    SatbenchError unless 0 ≤ broken ≤ sampled ≤ left in each.
    """
    for broken, sampled, left in samples:
        if not 0 <= broken <= sampled <= left:
            raise SatbenchError(f"expected a sample's count, got {broken} of {sampled} of {left}")
    open_ones = [one for one in samples if one[1] < one[2]]
    unsampled = sum(left for _, sampled, left in open_ones if not sampled)
    drawn = [one for one in open_ones if one[1]]
    if not drawn:
        return float(unsampled)
    from scipy.special import betaincinv

    broken, sampled, left = (sum(numbers) for numbers in zip(*drawn, strict=True))
    share = (
        1.0 if broken == sampled else float(betaincinv(broken + 1, sampled - broken, CONFIDENCE))
    )
    mean = min(float(sampled), max(sampled * share, broken + 1.0))
    weight = max(one[2] / one[1] for one in drawn)
    return float(unsampled + min(left - sampled, weight * mean - broken))


def mcnemar_p(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the two-sided p-value that two models are equally often right.  (N,), (N,) -> [0, 1].

    The exact form: an image that only one of them has right is either's with probability 1/2
    (McNemar, 1947, "Note on the sampling error of the difference between correlated proportions").
    Raises SatbenchError if the shapes differ.
    """
    if first.shape != second.shape:
        raise SatbenchError(f"expected the same images, got {first.shape} and {second.shape}")
    only_first = int(np.sum(first & ~second))
    only_second = int(np.sum(second & ~first))
    return float(mcnemar_p_of_counts(np.array([only_first]), np.array([only_second]))[0])


def matched_interval(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two shares of the same `n` images.

    `only_first` images count in the first share only, `only_second` in the second only.  Wald's
    interval with 1/2 added to each of the four counts (Agresti & Min, 2005, "Simple improved
    confidence intervals for comparing matched proportions", section 2).  -> ends in [-1, 1].
    """
    first, second, total = only_first + 0.5, only_second + 0.5, n + 2
    middle = (first - second) / total
    error = sqrt((first + second) - (first - second) ** 2 / total) / total
    half = _NORMAL * error
    return max(-1.0, middle - half), min(1.0, middle + half)


def mcnemar_p_of_counts(
    only_first: NDArray[np.int64], only_second: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the p-values of many McNemar tests.  (P,), (P,) counts -> (P,) in [0, 1].

    The counts are the images that only the first, or only the second, of two models has right.
    """
    from scipy.special import bdtr

    # The binomial distribution of 1/2 is symmetric: the other tail is as likely.
    tail = bdtr(np.minimum(only_first, only_second), only_first + only_second, 0.5)
    values: NDArray[np.float64] = np.minimum(1.0, 2 * tail)
    return values


def holm(p_values: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """Return p-values adjusted for their number, in the order given, in [0, 1].

    Holm, 1979, "A simple sequentially rejective multiple test procedure".
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factors * values[order]))
    return [float(value) for value in adjusted]


def paired_t_interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean of paired differences, in their unit.

    Student, 1908, "The probable error of a mean".  Raises SatbenchError for fewer than two.
    """
    if len(differences) < 2:
        raise SatbenchError(f"expected two or more paired differences, got {len(differences)}")
    from scipy.special import stdtrit  # Student's distribution, inverted

    quantile = float(stdtrit(len(differences) - 1, (1 + CONFIDENCE) / 2))
    half = quantile * stdev(differences) / sqrt(len(differences))
    return fmean(differences) - half, fmean(differences) + half
