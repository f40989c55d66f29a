"""What a player is worth to a coalition: leave-one-out, and Shapley values by enumeration or truncated Monte Carlo."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

Value = Callable[[frozenset[int]], float]
"""What a coalition of players 0 .. n - 1 is worth."""


class Remembered:
    """A value function that is asked once for each coalition.

    Args:
        value: the function; deterministic.

    Attributes:
        asked: how many coalitions were valued.
    """

    def __init__(self, value: Value) -> None:
        self._value, self._known = value, dict[frozenset[int], float]()

    @property
    def asked(self) -> int:
        """Coalitions valued so far."""
        return len(self._known)

    def __call__(self, coalition: frozenset[int]) -> float:
        """The coalition's worth."""
        if coalition not in self._known:
            self._known[coalition] = self._value(coalition)
        return self._known[coalition]


@dataclass(frozen=True)
class Shapley:
    """Shapley values.

    Attributes:
        values: `[n]`; their sum is the worth of all minus that of nobody, but for what truncation takes away.
        errors: `[n]`, standard errors over permutations; zero where all coalitions were enumerated.
        permutations: that were walked; 0 where all coalitions were enumerated.
        truncated: the share of marginals that were taken for zero.
    """

    values: Floats
    errors: Floats
    permutations: int = 0
    truncated: float = 0.0


def leave_one_out(players: int, value: Value) -> Floats:
    """v(all) - v(all but i), `[n]`.

    >>> leave_one_out(2, lambda s: float(len(s)) ** 2).tolist()
    [3.0, 3.0]
    """
    everybody = frozenset(range(players))
    whole = value(everybody)
    return np.array([whole - value(everybody - {player}) for player in range(players)])


def exact_shapley(players: int, value: Value) -> Shapley:
    """phi_i = sum over coalitions S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S)) (Shapley 1953).

    All 2^n coalitions are valued.

    >>> exact_shapley(3, lambda s: float({0, 1} <= s)).values.tolist()
    [0.5, 0.5, 0.0]
    """
    known = Remembered(value)
    values = np.zeros(players)
    for mask in range(2**players):
        coalition = frozenset(player for player in range(players) if mask >> player & 1)
        size = len(coalition)
        for player in range(players):
            if player not in coalition:
                weight = 1.0 / (players * math.comb(players - 1, size))
                values[player] += weight * (known(coalition | {player}) - known(coalition))
    return Shapley(values, np.zeros(players))


def truncated_shapley(
    players: int, value: Value, permutations: int, rng: np.random.Generator, tolerance: float = 0.01
) -> Shapley:
    """Truncated Monte Carlo Shapley values (Ghorbani and Zou 2019, algorithm 1).

    The mean over random orders of what each player adds when it comes. Once |v(all) - v(those that came)| is at most
    `tolerance` |v(all) - v(nobody)| all that follow count as adding nothing, which saves their evaluations and
    biases the values by as much at most.

    Args:
        players: n >= 1.
        value: of a coalition.
        permutations: random orders, >= 2 for an error.
        rng: draws them.
        tolerance: >= 0; 0 truncates only where nothing is left to gain exactly.
    """
    known = Remembered(value)
    nobody, whole = known(frozenset()), known(frozenset(range(players)))
    enough = tolerance * abs(whole - nobody)
    marginals = np.zeros((permutations, players))
    cut = 0
    for walked in range(permutations):
        coalition, reached = frozenset[int](), nobody
        for place, player in enumerate(rng.permutation(players)):
            if tolerance > 0 and abs(whole - reached) <= enough and place:
                cut += players - place
                break
            coalition |= {int(player)}
            now = known(coalition)
            marginals[walked, player] = now - reached
            reached = now
    spread = marginals.std(axis=0, ddof=1) / math.sqrt(permutations) if permutations > 1 else np.full(players, np.nan)
    return Shapley(marginals.mean(axis=0), spread, permutations, cut / (permutations * players))


def shapley(
    players: int, value: Value, permutations: int, rng: np.random.Generator, tolerance: float = 0.01
) -> Shapley:
    """By enumeration where 2^n coalitions are no more than the walk of `permutations` would visit, else truncated."""
    if 2**players <= permutations * players:
        return exact_shapley(players, value)
    return truncated_shapley(players, value, permutations, rng, tolerance)
