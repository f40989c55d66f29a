"""Skellam noise, the difference of two Poisson draws of equal mean: its sampler, and its privacy.

Agarwal, Kairouz, Liu, "The Skellam Mechanism for Differentially Private Federated Learning", NeurIPS 2021.

A sum of Skellam variables is Skellam: the noise of many clients is known exactly, whoever of them takes part.
"""

import functools
import math

import numpy as np

from fedmeta.privacy.distributed.draws import Words, accepted, uniforms
from fedmeta.privacy.distributed.hadamard import Floats
from fedmeta.privacy.distributed.rounding import Integers

LARGEST_DEVIATION = 2.0**22
"""Above this a Poisson draw nears 2^45, and float64 no longer tells neighbours' probabilities apart well."""

_TABLE_BELOW = 40.0
"""Deviations up to which a table of the distribution is quickest; above it Poisson means are at least 800."""


def sample(count: int, deviation: float, words: Words) -> Integers:
    """`[count]` independent symmetric Skellam variables.

    Not exact: each probability is that of the law to about 1e-9 of it or 1e-15; what is rarer than 1e-16 is not drawn.

    Args:
        count: >= 0.
        deviation: standard deviation, in [0, LARGEST_DEVIATION].
        words: what they are made of.

    Raises:
        ValueError: a deviation out of bounds.
    """
    if not 0 <= deviation <= LARGEST_DEVIATION:
        raise ValueError(f"deviation = {deviation} must be >= 0, <= {LARGEST_DEVIATION:g}")
    if deviation == 0:
        return np.zeros(count, dtype=np.int64)
    if deviation <= _TABLE_BELOW:
        cumulative = _cumulative(deviation)
        return np.searchsorted(cumulative, uniforms(words, count)).astype(np.int64) - len(cumulative) // 2
    mean = deviation**2 / 2
    return poisson(count, mean, words) - poisson(count, mean, words)


@functools.lru_cache(maxsize=8)
def _cumulative(deviation: float) -> Floats:
    """P[X <= k] for k = -m .. m; beyond m lies less than any 52-bit uniform can tell."""
    from scipy.special import ive

    most = int(9 * deviation) + 40
    k = np.abs(np.arange(-most, most + 1))
    found: Floats = np.cumsum(ive(k, deviation**2))  # P[X = k] = exp(-v) I_|k|(v), v the variance
    return found / found[-1]


def poisson(count: int, mean: float, words: Words) -> Integers:
    """`[count]` Poisson variables by transformed rejection (Hoermann 1993, algorithm PTRS).

    Args:
        count: >= 0.
        mean: in [500, 2^44].
        words: what they are made of.
    """
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    scale = 1.1239 + 1.1328 / (b - 3.4)
    surely = 0.9277 - 3.6224 / (b - 2)

    def attempt(tries: int) -> Integers:
        u, v = uniforms(words, tries) - 0.5, uniforms(words, tries)
        edge = 0.5 - np.abs(u)
        k = np.floor((2 * a / edge + b) * u + mean + 0.43)
        keep = (edge >= 0.07) & (v <= surely)
        # Stirling's series below needs k of some size; a mean of 500 lies 20 deviations above 50.
        doubtful = np.flatnonzero(~keep & (k >= 50) & ((edge >= 0.013) | (v <= edge)))
        near = edge[doubtful]
        height = np.log(v[doubtful] * scale / (a / near**2 + b))
        keep[doubtful] = height <= _log_poisson(k[doubtful], mean)
        return k[keep].astype(np.int64)

    return accepted(count, attempt, 0.89)


def _log_poisson(k: Floats, mean: float) -> Floats:
    """log P[X = k] by Loader's saddle point: k log(mean) - mean - log k! would lose its digits where both are large."""
    x = (k - mean) / mean
    deviance = mean * ((1 + x) * np.log1p(x) - x)
    stirling = 1 / (12 * k) - 1 / (360 * k**3)
    found: Floats = -deviance - 0.5 * np.log(2 * math.pi * k) - stirling
    return found


def rdp(orders: Floats, l2: float, l1: float, deviation: float) -> Floats:
    """The Renyi divergence of orders alpha > 1 at most (Agarwal et al. 2021, corollary 3.6), with v = deviation^2:

    alpha l2^2 / (2 v) + min{ ((2 alpha - 1) l2^2 + 6 l1) / (4 v^2), 3 l1 / (2 v) }.

    The theorem is for integer orders. Between them (alpha - 1) epsilon(alpha), which is convex, is interpolated.

    Args:
        orders: `[k]`, each > 1.
        l2: largest distance of neighbouring sums, in integers.
        l1: the same in the sum of absolute values.
        deviation: standard deviation of all the noise that counts, in integers, > 0.
    """
    variance = deviation**2

    def moment(alpha: Floats) -> Floats:
        extra = np.minimum(((2 * alpha - 1) * l2**2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
        at: Floats = (alpha - 1) * (alpha * l2**2 / (2 * variance) + extra)
        return at

    low, share = np.floor(orders), orders - np.floor(orders)
    found: Floats = ((1 - share) * moment(low) + share * moment(low + 1)) / (orders - 1)
    return found
