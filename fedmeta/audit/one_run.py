"""The one-run audit: a lower bound on epsilon from guesses about many canaries (Steinke, Nasr, Jagielski 2023)."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmeta.errors import ConfigurationError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of the canaries about which an attacker guesses; the failure probability is divided among them."""


@dataclass(frozen=True)
class LowerBound:
    """With probability 1 - beta the true epsilon is at least this; 0 where nothing was found.

    Attributes:
        epsilon: the bound.
        guesses, correct: of the attacker at the share that gave it.
        canaries: m.
        delta: of the claim that is tested.
        beta: probability that the bound is wrong.
    """

    epsilon: float
    guesses: int
    correct: int
    canaries: int
    delta: float
    beta: float


def epsilon_lower_bound(canaries: int, guesses: int, correct: int, delta: float, beta: float) -> float:
    """The largest epsilon under which so many correct guesses would be a surprise (theorem 5.2 of the paper).

    p(eps) = min(1, P[W >= v] + 2 m delta max_i P[v - i <= W < v] / i) with W ~ Bin(r, e^eps / (1 + e^eps)); the bound
    is the supremum of eps with p(eps) <= beta, and 0 where there is none.

    Args:
        canaries: m >= 1, each in or out by a fair coin of its own.
        guesses: r, 0 <= r <= m.
        correct: v, 0 <= v <= r.
        delta: in [0, 1).
        beta: in (0, 1).

    >>> round(epsilon_lower_bound(1000, 200, 180, 1e-5, 0.05), 4)
    1.7963
    """
    if not (0 <= correct <= guesses <= canaries and canaries >= 1 and 0 <= delta < 1 and 0 < beta < 1):
        raise ConfigurationError(
            f"{correct} correct of {guesses} guesses about {canaries} canaries at delta = {delta}, beta = {beta}: "
            "correct <= guesses <= canaries, delta in [0, 1), beta in (0, 1)"
        )
    if _surprise(0.0, canaries, guesses, correct, delta) > beta:
        return 0.0
    low, high = 0.0, 1.0
    while _surprise(high, canaries, guesses, correct, delta) <= beta:
        low, high = high, 2 * high
        if high > 100:  # cannot happen with finitely many guesses and beta > 0
            return high
    while high - low > 1e-7:
        middle = (low + high) / 2
        if _surprise(middle, canaries, guesses, correct, delta) <= beta:
            low = middle
        else:
            high = middle
    return low


def _surprise(epsilon: float, canaries: int, guesses: int, correct: int, delta: float) -> float:
    from scipy.stats import binom

    share = 1 / (1 + math.exp(-epsilon))
    at_least = float(binom.sf(correct - 1, guesses, share))
    if delta == 0 or correct == 0:
        return min(1.0, at_least)
    mass = binom.pmf(np.arange(correct), guesses, share)
    # P[v - i <= W < v] for i = 1 .. v: sums of the last i of the masses below v.
    slack = np.cumsum(mass[::-1]) / np.arange(1, correct + 1)
    return min(1.0, at_least + 2 * canaries * delta * float(slack.max()))


def one_run_bound(scores: Floats, included: Bools, delta: float, beta: float = 0.05) -> LowerBound:
    """The best bound over guessing about the most telling canaries only; beta is shared out among the choices.

    Args:
        scores: `[m]`, higher where a canary seems to have taken part; on one scale for all canaries.
        included: `[m]`, which did, each by a fair coin.
        delta: of the claim.
        beta: probability that the bound is wrong, in (0, 1).
    """
    total = len(scores)
    order = np.argsort(-scores, kind="stable")
    best = LowerBound(0.0, 0, 0, total, delta, beta)
    for share in SHARES:
        half = max(1, round(share * total / 2))
        guesses = min(2 * half, total)
        high, low = order[:half], order[total - (guesses - half) :]
        correct = int(included[high].sum() + (~included[low]).sum())
        found = epsilon_lower_bound(total, guesses, correct, delta, beta / len(SHARES))
        if found > best.epsilon:
            best = LowerBound(found, guesses, correct, total, delta, beta)
    return best
