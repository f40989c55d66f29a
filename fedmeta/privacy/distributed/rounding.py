"""Stochastic rounding to integers, drawn again until the norm has grown by little (Kairouz, Liu, Steinke 2021)."""

import math

import numpy as np
import numpy.typing as npt

from fedmeta.privacy.distributed.hadamard import Floats

Integers = npt.NDArray[np.int64]

BETA = math.exp(-0.5)
"""Most that may go wrong in one try: fewer than 1 / (1 - BETA) = 2.55 tries are expected."""

LARGEST_NORM = 2.0**30
"""Norms are kept below this, so that squared norms of integer vectors are exact in int64."""


def bound(norm: float, size: int, beta: float = BETA) -> float:
    """The largest norm after conditional rounding: the square root of

    min{ (N + sqrt(d))^2, N^2 + d / 4 + sqrt(2 ln(1 / beta)) (N + sqrt(d) / 2) }.

    Args:
        norm: N >= 0, the largest before, in integers.
        size: d >= 1 coordinates.
        beta: most that a try may fail with, in (0, 1); nearer 1 the bound is tighter, and the rounding more biased.

    >>> round(bound(100.0, 16), 4), round(bound(0.0, 16), 4)
    (100.5286, 2.4495)
    """
    root = math.sqrt(size)
    always = (norm + root) ** 2
    likely = norm**2 + size / 4 + math.sqrt(2 * math.log(1 / beta)) * (norm + root / 2)
    return math.sqrt(min(always, likely))


def randomly(values: Floats, generator: np.random.Generator) -> Integers:
    """floor(y) + Bernoulli(y - floor(y)) in each coordinate: unbiased, of variance at most 1 / 4.

    Args:
        values: `[d]`, each below 2^53 in size.
    """
    low = np.floor(values)
    return low.astype(np.int64) + (generator.random(len(values)) < values - low)


def within(values: Floats, norm: float, generator: np.random.Generator) -> Integers:
    """`randomly`, drawn again until the norm is at most `bound(norm, d)`.

    The rounding need not be secret: the bound holds for each of its outcomes. That it is conditional biases it by
    at most BETA / (1 - BETA) sqrt(d), in norm.

    Args:
        values: `[d]`, of a norm of at most `norm`, but for rounding in its last digits.
        norm: N in integers, 0 <= N <= LARGEST_NORM.

    Raises:
        ValueError: a norm out of bounds.
    """
    length = float(np.linalg.norm(values))
    if not (length <= norm * (1 + 1e-9) and norm <= LARGEST_NORM):
        raise ValueError(f"values of norm {length:g} must be within norm = {norm:g}, and that <= 2^30")
    most = bound(norm, len(values)) ** 2
    while True:
        found = randomly(values, generator)
        if int(np.dot(found, found)) <= most:
            return found
