"""Statistics of paired seeds: intervals that resample whole seeds, the exact Wilcoxon test, Holm's correction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ENUMERATED = 6
"""Up to so many seeds all resamples are listed (6^6 = 46,656), so that the interval holds no chance at all."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its percentile interval.

    Attributes:
        mean: over all values.
        low, high: bounds; None where there is one seed.
        seeds: how many were resampled.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int


def seed_interval(
    clusters: Sequence[Sequence[float]], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Mean and percentile bootstrap interval that draws whole seeds (cluster bootstrap; Davison & Hinkley 1997, 3.8).

    Episodes of one seed share a model and so are not independent: a resample takes all of a seed's values or none.
    Percentile intervals of few seeds are too narrow: see docs/benchmarks.md for their measured coverage.

    Args:
        clusters: one sequence of finite values a seed, none empty.
        level: in (0, 1).
        resamples: drawn where there are more than `ENUMERATED` seeds; with fewer all S^S are listed.
        seed: of these draws.

    Raises:
        ValueError: no seed, or one without a value.

    >>> seed_interval([[0.0], [1.0]])  # resamples 00 01 10 11: means 0, 1/2, 1/2, 1
    Interval(mean=0.5, low=0.0, high=1.0, seeds=2)
    """
    if not clusters or any(len(cluster) == 0 for cluster in clusters):
        raise ValueError("an interval over seeds needs at least one value of every seed")
    sums = np.array([math.fsum(cluster) for cluster in clusters])
    counts = np.array([len(cluster) for cluster in clusters], dtype=np.float64)
    mean, total = float(sums.sum() / counts.sum()), len(clusters)
    if total == 1:
        return Interval(mean, None, None, 1)
    if total <= ENUMERATED:
        drawn = np.indices((total,) * total).reshape(total, -1).T
    else:
        drawn = np.random.default_rng(seed).integers(total, size=(resamples, total))
    means = np.sort(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail], method="inverted_cdf")
    return Interval(mean, float(low), float(high), total)


def wilcoxon(differences: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, exact also with ties (Wilcoxon 1945; zeros are left out).

    The null distribution is that of the signs given the mid-ranks. Nothing but zeros gives 1; n differences other than
    zero cannot give less than `least_p(n)`.

    >>> wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0])
    0.0625
    """
    from scipy.stats import rankdata

    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not len(values):
        return 1.0
    doubled = np.rint(2 * rankdata(np.abs(values))).astype(np.int64)  # mid-ranks are halves
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1.0
    for rank in doubled:  # share of sign patterns whose positive ranks sum to each number
        shifted = np.zeros_like(ways)
        shifted[rank:] = ways[: len(ways) - rank]
        ways = (ways + shifted) / 2
    positive = int(doubled[values > 0].sum())
    lower = float(ways[: min(positive, int(doubled.sum()) - positive) + 1].sum())
    return min(1.0, 2 * lower)


def least_p(pairs: int) -> float:
    """The smallest two-sided p that Wilcoxon's test can give with so many pairs.

    >>> least_p(5), least_p(10)
    (0.0625, 0.001953125)
    """
    return min(1.0, 2.0 ** (1 - pairs))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given (Holm 1979): any below alpha is rejected at family-wise level alpha.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted
