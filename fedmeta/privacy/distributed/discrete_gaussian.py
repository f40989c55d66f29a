"""Discrete Gaussian noise: samplers (Canonne, Kamath, Steinke, NeurIPS 2020) and the privacy of sums of it (Kairouz,
Liu, Steinke, "The Distributed Discrete Gaussian Mechanism", ICML 2021).

A sum of discrete Gaussians is not quite one: `spread` bounds how far it is from one.
"""

import math
import secrets
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from fedmeta.privacy.distributed.draws import Words, accepted, uniforms
from fedmeta.privacy.distributed.hadamard import Floats
from fedmeta.privacy.distributed.rounding import Integers

LARGEST_DEVIATION = 2.0**40
"""Above this float64 no longer holds squares of draws well."""

SMALLEST_DEVIATION = 2.0
"""A share of less noise, in integers, is refused: sums of coarser ones are far from a discrete Gaussian."""

Below = Callable[[int], int]
"""n >= 1 -> a uniform integer in [0, n)."""


def sample(count: int, deviation: float, words: Words) -> Integers:
    """`[count]` independent variables with P[k] proportional to exp(-k^2 / (2 deviation^2)).

    By rejection from a discrete Laplace distribution, in float64: not exact, see `sample_exactly`.

    Args:
        count: >= 0.
        deviation: in [0, LARGEST_DEVIATION].
        words: what they are made of.

    Raises:
        ValueError: a deviation out of bounds.
    """
    if not 0 <= deviation <= LARGEST_DEVIATION:
        raise ValueError(f"deviation = {deviation} must be >= 0, <= {LARGEST_DEVIATION:g}")
    if deviation == 0:
        return np.zeros(count, dtype=np.int64)
    t = math.floor(deviation) + 1

    def attempt(tries: int) -> Integers:
        u, v, w = (np.log(uniforms(words, tries)) for _ in range(3))
        # The difference of two geometric variables is a discrete Laplace one.
        k = np.floor(-t * u) - np.floor(-t * v)
        keep = w <= -((np.abs(k) - deviation**2 / t) ** 2) / (2 * deviation**2)
        return k[keep].astype(np.int64)

    return accepted(count, attempt, 0.7 if deviation > 2 else 0.3)


def sample_exactly(variance: Fraction, below: Below = secrets.randbelow) -> int:
    """One draw in rational arithmetic, with no error at all (Canonne et al. 2020, algorithms 1 to 3): some 20 us.

    Args:
        variance: the square of the parameter, > 0.
        below: uniform integers; the operating system's unless given.

    Raises:
        ValueError: a variance that is not positive.
    """
    if variance <= 0:
        raise ValueError(f"variance = {variance} must be > 0")
    t = math.isqrt(variance.numerator // variance.denominator) + 1
    while True:
        k = _laplace(t, below)
        if _exponential_coin((abs(k) - variance / t) ** 2 / (2 * variance), below):
            return k


def _laplace(t: int, below: Below) -> int:
    """P[k] proportional to exp(-|k| / t)."""
    while True:
        u = below(t)
        if not _exponential_coin(Fraction(u, t), below):
            continue
        v = 0
        while _exponential_coin(Fraction(1), below):
            v += 1
        negative, size = below(2), u + t * v
        if size or not negative:
            return -size if negative else size


def _exponential_coin(rate: Fraction, below: Below) -> bool:
    """True with probability exp(-rate), rate >= 0."""
    while rate > 1:
        if not _exponential_coin(Fraction(1), below):
            return False
        rate -= 1
    k = 1
    while below(rate.denominator * k) < rate.numerator:
        k += 1
    return k % 2 == 1


def spread(deviation: float, shares: int) -> float:
    """tau = 10 sum over k = 1 .. n - 1 of exp(-2 pi^2 deviation^2 k / (k + 1)).

    Args:
        deviation: of one share, in integers, > 0.
        shares: n >= 1, how many are summed.

    >>> [f"{spread(each, 10):.3g}" for each in (0.5, 1.0, 2.0)]
    ['2.35', '0.000544', '7.16e-17']
    """
    k = np.arange(1, shares)
    return float(10 * np.exp(-2 * math.pi**2 * deviation**2 * k / (k + 1)).sum())


def rdp(orders: Floats, l2: float, l1: float, deviation: float, shares: int, size: int) -> Floats:
    """The Renyi divergence of orders alpha > 1 at most (Kairouz et al. 2021, proposition 14): the least of

    alpha L2^2 / 2 + tau d,  alpha / 2 (L2^2 + 2 L1 tau + tau^2 d),  alpha / 2 (L2 + sqrt(d) tau)^2,

    with L_p = l_p / (sqrt(n) deviation).

    Args:
        orders: `[k]`, each > 1.
        l2: largest distance of neighbouring sums, in integers.
        l1: the same in the sum of absolute values.
        deviation: of one share, in integers, > 0.
        shares: n >= 1, how many count.
        size: d >= 1 coordinates.
    """
    tau, all_noise = spread(deviation, shares), math.sqrt(shares) * deviation
    two, one = l2 / all_noise, l1 / all_noise
    squared = min(two**2 + 2 * one * tau + tau**2 * size, (two + math.sqrt(size) * tau) ** 2)
    return np.minimum(orders * two**2 / 2 + tau * size, orders * squared / 2)
