"""Random groups of clients, and the odds that malicious clients spoil them: pure mathematics, no messages.

Under secure aggregation a robust rule sees one row a group, the mean of its clients, so that one malicious client
spoils a whole row. With f malicious clients among n, thrown into groups at random, the number that falls into a group
of g follows the hypergeometric law: a group is clean with probability C(n - f, g) / C(n, g), and on average
G (1 - C(n - f, g) / C(n, g)) of G groups are bad, about G (1 - (1 - f / n)^g).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")


def group_sizes(n: int, size: int | None) -> list[int]:
    """Sizes of the floor(n / size) groups of n clients, which differ by at most one; a single one for None.

    Where there are fewer clients than a group takes they make a smaller one.

    >>> group_sizes(10, 4), group_sizes(3, 4), group_sizes(7, None)
    ([5, 5], [3], [7])
    """
    if n == 0:
        return []
    count = 1 if size is None else max(1, n // size)
    return [n // count + (1 if index < n % count else 0) for index in range(count)]


def partition(items: Sequence[T], size: int | None, rng: np.random.Generator) -> list[list[T]]:
    """Items thrown into groups at random; within a group they keep their order.

    >>> partition("abcdef", 3, np.random.default_rng(0))
    [['c', 'd', 'f'], ['a', 'b', 'e']]
    """
    order = rng.permutation(len(items))
    groups, start = [], 0
    for members in group_sizes(len(items), size):
        groups.append([items[index] for index in sorted(order[start : start + members].tolist())])
        start += members
    return groups


def clean_probability(n: int, bad: int, size: int) -> float:
    """Probability that a random group of `size` of n clients holds none of the bad ones: C(n - bad, size) / C(n, size).

    >>> round(clean_probability(100, 10, 4), 4), clean_probability(4, 4, 1)
    (0.6516, 0.0)
    """
    return math.comb(n - bad, size) / math.comb(n, size)


def bad_groups(bad: int, sizes: Sequence[int]) -> npt.NDArray[np.float64]:
    """The law of the number of groups that hold at least one bad client.

    Group after group takes its hypergeometric share of the bad clients that are left, so that every term is positive
    and none cancels.

    Args:
        bad: bad clients among sum(sizes), thrown into the groups at random.
        sizes: of the groups.

    Returns:
        `[G + 1]`, entry j the probability of j bad groups.

    >>> bad_groups(1, [2, 2]).tolist(), bad_groups(2, [2, 2]).round(4).tolist()
    ([0.0, 1.0, 0.0], [0.0, 0.3333, 0.6667])
    """
    left = sum(sizes)
    law = np.zeros((bad + 1, len(sizes) + 1))  # by bad clients left and bad groups so far
    law[bad, 0] = 1.0
    for size in sizes:
        after = np.zeros_like(law)
        for remaining in np.flatnonzero(law.any(axis=1)).tolist():
            for taken in range(max(0, size - (left - remaining)), min(size, remaining) + 1):
                ways = math.comb(remaining, taken) * math.comb(left - remaining, size - taken)
                share = law[remaining] * (ways / math.comb(left, size))
                if taken:
                    after[remaining - taken, 1:] += share[:-1]
                else:
                    after[remaining] += share
        law, left = after, left - size
    return law[0]


def groups_to_tolerate(law: npt.NDArray[np.float64], risk: float) -> int:
    """The least b such that more than b groups are bad with probability at most `risk`.

    >>> groups_to_tolerate(np.array([0.2, 0.5, 0.2, 0.1]), 0.1), groups_to_tolerate(np.array([0.2, 0.8]), 0.0)
    (2, 1)
    """
    above = 1.0 - np.cumsum(law)
    return int(np.flatnonzero(above <= risk + 1e-12)[0])


@dataclass(frozen=True)
class GroupOdds:
    """What random groups make of malicious clients in one round.

    Attributes:
        clients: n, of a round.
        malicious: f, of them.
        sizes: of the groups.
        risk: accepted probability of more bad groups than `bad`.
    """

    clients: int
    malicious: int
    sizes: tuple[int, ...]
    risk: float

    @classmethod
    def of(cls, clients: int, malicious: int, group_size: int | None, risk: float) -> "GroupOdds":
        """For n clients in groups of `group_size`; there cannot be more malicious ones than clients."""
        return cls(clients, min(malicious, clients), tuple(group_sizes(clients, group_size)), risk)

    @property
    def groups(self) -> int:
        """G."""
        return len(self.sizes)

    @property
    def law(self) -> npt.NDArray[np.float64]:
        """`[G + 1]`, the probability of each number of bad groups."""
        return bad_groups(self.malicious, self.sizes)

    @property
    def clean(self) -> float:
        """Probability that a group is clean, of the largest size."""
        return clean_probability(self.clients, self.malicious, max(self.sizes))

    @property
    def bad(self) -> int:
        """Bad groups that a rule must bear: more of them come with probability `risk` at most."""
        return groups_to_tolerate(self.law, self.risk)

    def beyond(self, tolerated: int) -> float:
        """Probability that more than so many groups are bad."""
        return float(max(0.0, self.law[tolerated + 1 :].sum()))
