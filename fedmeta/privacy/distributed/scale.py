"""How finely contributions are cut into integers, so that their sum fits the modulus (Kairouz, Liu, Steinke 2021).

Here the clip norm C is the unit of length, so that a scale s is the granularity s C: integers to a clip norm.
"""

import math

from fedmeta.errors import ConfigurationError
from fedmeta.privacy.distributed import skellam
from fedmeta.privacy.distributed.rounding import LARGEST_NORM

WRAP = 2.0**-40
"""Accepted probability that a coordinate of a group's sum wraps. The sum would be wrong then, and not less private."""


def modulus_needed(kappa: float, clients: int, size: int, share: float, granularity: float) -> float:
    """2 kappa sqrt(n^2 / d + (1 / (4 s^2) + share^2) n) s: how many integers hold a sum to kappa deviations.

    Args:
        kappa: deviations, > 0.
        clients: n >= 1, the most that are summed.
        size: d >= 1 coordinates, padding included; rotated, so that none is likely to be large.
        share: standard deviation of one client's noise, in clip norms, >= 0.
        granularity: s > 0.
    """
    spread = clients**2 / size + (1 / (4 * granularity**2) + share**2) * clients
    return 2 * kappa * math.sqrt(spread) * granularity


def largest_granularity(bits: int, kappa: float, clients: int, size: int, share: float) -> float:
    """sqrt(2^(2b) - n kappa^2) / (2 kappa sqrt(n^2 / d + n share^2)): where `modulus_needed` is 2^b.

    Raises:
        ConfigurationError: too few bits for the rounding errors of so many clients alone.

    >>> s = largest_granularity(16, 4.0, 100, 1024, 0.1)
    >>> round(modulus_needed(4.0, 100, 1024, 0.1, s) / 2**16, 12)
    1.0
    """
    left = 4.0**bits - clients * kappa**2
    if left <= 0:
        raise ConfigurationError(
            f"bits = {bits} is too little for a sum over {clients} clients: use more bits, or smaller groups"
        )
    return math.sqrt(left) / (2 * kappa * math.sqrt(clients**2 / size + clients * share**2))


def wrap_bound(bits: int, clients: int, size: int, share: float, granularity: float, is_skellam: bool) -> float:
    """An upper bound of the probability that any coordinate of a sum wraps, over signs and noise; no approximation.

    The rotated sum is sub-Gaussian with variance (n s)^2 / d at most, contributions being fixed before the signs are
    drawn; rounding moves it by less than n; and the noise has a moment generating function. So Chernoff's bound.

    Args:
        bits, clients, size, share, granularity: as above.
        is_skellam: whether noise is Skellam, whose tails are heavier than a Gaussian's.
    """
    room = 2.0 ** (bits - 1) - 1 - clients
    if room <= 0:
        return 1.0
    contributions, noise = (clients * granularity) ** 2 / size, clients * (share * granularity) ** 2

    def slope(t: float) -> float:
        return contributions * t + noise * (math.sinh(t) if is_skellam else t)

    low, high = 0.0, min(room / (contributions + noise), 700.0)
    for _ in range(100):  # of the exponent, which is convex in t: the least lies where its slope is `room`
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < room else (low, middle)
    curved = 2 * math.sinh(low / 2) ** 2 if is_skellam else low**2 / 2  # cosh t - 1
    exponent = contributions * low**2 / 2 + noise * curved - low * room
    return min(1.0, 2 * size * math.exp(max(exponent, -745.0)))


def choose(bits: int, clients: int, size: int, share: float, is_skellam: bool, wrap: float = WRAP) -> float:
    """The granularity for which a sum wraps with probability at most `wrap`.

    By `largest_granularity`, with kappa from the Gaussian tail, sqrt(2 ln(2 d / wrap)), and a hundredth more until
    `wrap_bound` agrees. No finer than what squared norms and the sampler bear, beyond which nothing is gained: rounding
    is then millions of times smaller than the noise, or than C.

    Raises:
        ConfigurationError: too few bits for so many clients.
    """
    kappa = math.sqrt(2 * math.log(2 * size / wrap))
    most = min(LARGEST_NORM, skellam.LARGEST_DEVIATION / share) if share else LARGEST_NORM
    while True:
        found = min(most, largest_granularity(bits, kappa, clients, size, share))
        if wrap_bound(bits, clients, size, share, found, is_skellam) <= wrap:
            return found
        kappa *= 1.01
