"""How far values stand below their median, in units that outliers cannot stretch, and how often by chance."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

CONSISTENT = 1.4826
"""The median absolute deviation times this is the standard deviation of normal values."""


def low_outliers(
    values: Sequence[float] | npt.NDArray[np.floating], least_scale: float = 0.0
) -> npt.NDArray[np.float64]:
    """How far each value lies below the median: (median - x) / (1.4826 MAD) (Wang et al., S&P 2019, section IV-B).

    The paper takes the absolute deviation and looks at values below the median only; here those above are negative.

    Args:
        values: `[n]`, at least one, finite.
        least_scale: the smallest deviation to divide by: how exact the values are.

    Returns:
        `[n]` indices; where more than half of the values are equal, so that MAD is 0, and nothing is said of how exact
        they are, the others' are infinite.

    >>> low_outliers([1.0, 9.0, 10.0, 11.0, 12.0]).round(2).tolist()
    [6.07, 0.67, 0.0, -0.67, -1.35]
    """
    x = np.asarray(values, dtype=np.float64)
    below = np.median(x) - x
    scale = max(CONSISTENT * np.median(np.abs(below)), least_scale)
    if scale > 0:
        with np.errstate(over="ignore"):
            return below / scale
    return np.where(below == 0, 0.0, np.copysign(np.inf, below))


def chance_of(index: float, count: int, draws: int = 20_000) -> float:
    """How often the largest index of `count` normal values reaches `index`: few values give large indices by chance.

    By simulation with a fixed seed, to about 0.003.

    >>> [round(chance_of(2.0, count), 1) for count in (5, 10, 20)]
    [0.3, 0.3, 0.4]
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((draws, count))
    below = np.median(x, axis=1, keepdims=True) - x
    scale = CONSISTENT * np.median(np.abs(below), axis=1)
    return float((below.max(axis=1) >= index * scale).mean())
