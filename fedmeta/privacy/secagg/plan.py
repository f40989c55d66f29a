"""How many neighbours a node has and how many shares rebuild a secret, by the hypergeometric law.

Nodes and graph are random to each other, so of a node's k neighbours a hypergeometric number is corrupt, and another
drops out. Degree k and threshold t are the smallest for which

- the graph without corrupt and dropped nodes is connected: n (corrupt + dropout)^(k/2) <= 2^-40 (k/2 nodes in a row);
- no node's secrets are in corrupt hands: n P[corrupt neighbours >= t] <= 2^-40, and t is at least half of k + 1;
- under an active adversary no secret pair can be asked for: of the k + 1 holders the honest ones give one kind of share
  each, so that both kinds reach t only with 2 t - (k + 1) corrupt ones: n P[corrupt >= 2 t - (k + 1)] <= 2^-40;
- nor, in a complete graph, can it bare a single vector by telling members different stories (see `split_views`);
- the masks can be removed: n P[fewer than t of a dropped node's k neighbours are left] <= 2^-28.

Up to 50 nodes the graph is complete, k = n - 1. (Bell et al. 2020, section 3.)
"""

import math
from dataclasses import dataclass
from functools import lru_cache

from fedmeta.errors import ConfigurationError
from fedmeta.parameters import require_number
from fedmeta.privacy.secagg.split_views import can_bare

SECURITY = 2.0**-40
CORRECTNESS = 2.0**-28
COMPLETE = 50
"""The largest group in which everybody is everybody's neighbour."""
MOST = 10**6
"""The largest group that is planned for: its plan takes a second."""
SMALLEST = 3
"""A sum of two tells each of them the other's vector."""


@dataclass(frozen=True)
class Plan:
    """Degree and threshold of a group.

    Args:
        count: n, members invited.
        degree: k, neighbours of a node: n - 1, or an even number below.
        threshold: t, shares that rebuild a secret, 2 <= t <= k + 1.

    Raises:
        ConfigurationError: numbers that no group can have.
    """

    count: int
    degree: int
    threshold: int

    def __post_init__(self) -> None:
        for name in ("count", "degree", "threshold"):
            require_number(f"secagg {name}", getattr(self, name), whole=True)
        if self.count < SMALLEST:
            raise ConfigurationError(
                f"secure aggregation: a group of {self.count} must have at least {SMALLEST} members: in a smaller one "
                "the sum tells a member's vector. Take larger groups"
            )
        complete = self.degree == self.count - 1
        if not complete and (self.degree % 2 or not 2 <= self.degree < self.count):
            raise ConfigurationError(
                f"secure aggregation: degree {self.degree} of {self.count} nodes must be {self.count - 1} or an even "
                "number from 2 to that"
            )
        if not 2 <= self.threshold <= self.degree + 1:
            raise ConfigurationError(
                f"secure aggregation: threshold {self.threshold} must be from 2 to {self.degree + 1}, the holders of "
                "a share"
            )


def choose_plan(count: int, corrupt: float = 0.1, dropout: float = 0.1, active: bool = False) -> Plan:
    """The sparsest graph and the lowest threshold that keep the bounds above.

    Args:
        count: members of the group, >= 3.
        corrupt: share of them that may collude with the server, 0 <= corrupt, corrupt + dropout < 1.
        dropout: share of them that may drop out.
        active: whether the server itself may lie (about who dropped, about keys); otherwise it is curious only.

    Raises:
        ConfigurationError: fractions out of bounds, or so large that no threshold keeps both privacy and recovery.

    >>> choose_plan(1000, corrupt=0.05, dropout=0.05)
    Plan(count=1000, degree=32, threshold=18)
    """
    _check_fractions(corrupt, dropout)
    require_number("secagg count", count, whole=True)
    if count > MOST:
        raise ConfigurationError(
            f"secure aggregation: count = {count} is more than a group of {MOST}: take several groups"
        )
    if count < SMALLEST:
        return Plan(count, max(count - 1, 0), 2)  # refuses, and says why
    return _choose(count, corrupt, dropout, active)


@lru_cache(maxsize=256)
def _choose(count: int, corrupt: float, dropout: float, active: bool) -> Plan:
    away = _share_of(dropout, count)
    for degree in range(least_degree(count, corrupt, dropout), count):
        if degree % 2 and degree != count - 1:
            continue
        threshold = least_threshold(count, degree, corrupt, active)
        if threshold <= degree + 1 and _unrecoverable(count, degree, threshold, away) <= CORRECTNESS:
            return Plan(count, degree, threshold)
    raise ConfigurationError(
        f"secure aggregation: a group of {count} cannot bear {corrupt:g} corrupt and {dropout:g} dropped members"
        f"{' under an active adversary' if active else ''}: no threshold keeps the masks safe and removable. Take "
        "larger groups or smaller fractions"
    )


def least_degree(count: int, corrupt: float, dropout: float) -> int:
    """The fewest neighbours that keep the graph of honest survivors connected; n - 1 where it must be complete."""
    lost = corrupt + dropout
    if count <= COMPLETE:
        return count - 1
    if lost == 0:
        return 2
    return min(count - 1, 2 * math.ceil(math.log(count / SECURITY) / -math.log(lost)))


@lru_cache(maxsize=4096)
def least_threshold(count: int, degree: int, corrupt: float, active: bool) -> int:
    """The fewest shares that keep secrets from the corrupt; `degree + 2`, which no group has, where nothing does."""
    bad, holders = _share_of(corrupt, count), degree + 1
    for threshold in range(max(2, (holders + 1) // 2), holders + 1):
        within_reach = 2 * threshold - holders if active else threshold
        if count * _at_least(within_reach, count - 1, bad, degree) > SECURITY:
            continue
        if not (active and holders == count and can_bare(count, threshold, bad)):
            return threshold
    return holders + 1


def _unrecoverable(count: int, degree: int, threshold: int, away: int) -> float:
    """Bound on the chance that some dropped node has fewer than `threshold` neighbours left."""
    if away == 0:
        return 0.0
    return count * _at_least(degree - threshold + 1, count - 1, away - 1, degree)


def _at_least(least: int, population: int, marked: int, drawn: int) -> float:
    """P[X >= least], X hypergeometric; from exact integers."""
    if least <= 0:
        return 1.0
    marked = min(marked, population)
    ways = sum(
        math.comb(marked, x) * math.comb(population - marked, drawn - x) for x in range(least, min(marked, drawn) + 1)
    )
    return ways / math.comb(population, drawn)


def _share_of(fraction: float, count: int) -> int:
    """A fraction of the members, rounded up; 0.1 of 30 is 3 whatever its last bit."""
    return math.ceil(round(fraction * count, 9))


def _check_fractions(corrupt: float, dropout: float) -> None:
    require_number("secagg corrupt", corrupt)
    require_number("secagg dropout", dropout)
    if not (corrupt >= 0 and dropout >= 0 and corrupt + dropout < 1):
        raise ConfigurationError(
            f"secure aggregation: corrupt = {corrupt} and dropout = {dropout} must be >= 0 and add up to less than 1"
        )
