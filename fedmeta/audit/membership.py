"""Membership of a task by likelihood ratios over shadow federations (LiRA: Carlini et al. 2022), beside a claim.

A target is a client's tasks: in where the client trained, out where it did not. What is observed is its query loss
after adaptation. Every shadow federation is attacked once, with the others as the attacker's own.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmeta.detection.ranking import auroc, tpr_at_fpr
from fedmeta.errors import ConfigurationError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FPRS = (0.001, 0.01)
"""False-positive rates at which true-positive rates are told."""

LEAST = 6
"""The fewest shadows: an attacker then has two with a target and two without it."""

POOLED_BELOW = 32
"""With fewer shadows on a side one spread serves all targets (Carlini et al. 2022, section VI-C use one below 64)."""

RESAMPLES = 1000
THRESHOLDS = np.arange(0.05, 1.0, 0.05)
"""Quantiles of the non-members' scores at which an epsilon is read off; the failure probability is divided."""


def logit_scaled(loss: Floats) -> Floats:
    """log(p / (1 - p)) with p = exp(-loss), which is nearly Gaussian over shadows where losses are not (section V-B).

    >>> logit_scaled(np.array([np.log(2.0)])).round(6).tolist()
    [0.0]
    """
    loss = np.maximum(loss, 1e-12)
    return -loss - np.log(-np.expm1(-loss))


def fair_halves(shadows: int, targets: int, rng: np.random.Generator) -> Bools:
    """Which shadow `[shadows, targets]` has which target in: each target in a random half, apart from the others.

    Raises:
        ConfigurationError: an odd number of shadows, or fewer than `LEAST`.
    """
    if shadows % 2 or shadows < LEAST:
        raise ConfigurationError(
            f"shadows = {shadows} must be even and at least {LEAST}: half of them hold a target, and one is attacked. "
            "Give another number by --shadows"
        )
    column = np.arange(shadows) % 2 == 0
    return np.stack([rng.permutation(column) for _ in range(targets)], axis=1)


def lira(observed: Floats, included: Bools, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Scores of every target in every shadow, the others serving as the attacker's shadows; higher: more likely in.

    Online: log N(x; mu_in, s_in) - log N(x; mu_out, s_out) (equation 4). Offline, without a shadow that holds the
    target: (x - mu_out) / s_out, which ranks as the one-sided tail probability does. Both sides are cut to the same
    size at random, so that their sizes do not tell which the attacked shadow is missing from.

    Args:
        observed: `[shadows, targets]`, logit-scaled losses.
        included: `[shadows, targets]`.
        rng: of the cuts.

    Returns:
        Online and offline scores, `[shadows, targets]` each.
    """
    shadows, targets = observed.shape
    online, offline = np.zeros_like(observed), np.zeros_like(observed)
    for shadow in range(shadows):
        others = np.arange(shadows) != shadow
        sides = [_sides(observed[others, t], included[others, t], rng) for t in range(targets)]
        means = np.array([[side.mean() for side in pair] for pair in sides])
        variances = np.array([[side.var(ddof=1) for side in pair] for pair in sides])
        if min(len(pair[0]) for pair in sides) < POOLED_BELOW:
            variances = np.broadcast_to(variances.mean(axis=0), variances.shape)
        variances = np.maximum(variances, 1e-12)
        away = (observed[shadow][:, None] - means) ** 2
        densities = -0.5 * (away / variances + np.log(variances))
        online[shadow] = densities[:, 0] - densities[:, 1]
        offline[shadow] = (observed[shadow] - means[:, 1]) / np.sqrt(variances[:, 1])
    return online, offline


def _sides(values: Floats, included: Bools, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Values in and out, cut to the same number."""
    inside, outside = values[included], values[~included]
    count = min(len(inside), len(outside))
    return rng.permutation(inside)[:count], rng.permutation(outside)[:count]


def most_caught(fpr: Floats | float, epsilon: float, delta: float) -> Floats:
    """The highest true-positive rate that (epsilon, delta) allows at a false-positive rate (Kairouz et al. 2015).

    min(e^eps FPR + delta, 1 - e^-eps (1 - delta - FPR)), at most 1.

    >>> most_caught(0.01, np.log(2.0), 0.001).round(4).tolist()
    0.021
    """
    rate = np.asarray(fpr, dtype=np.float64)
    grown = math.exp(min(epsilon, 700.0))
    return np.minimum(1.0, np.minimum(grown * rate + delta, 1 - np.maximum(1 - delta - rate, 0.0) / grown))


def auroc_bound(epsilon: float, delta: float) -> float:
    """The area under `most_caught`: no test of membership has a larger one.

    >>> round(auroc_bound(1.0, 0.0), 6) == round(np.e / (1 + np.e), 6)
    True
    """
    grown = math.exp(min(epsilon, 700.0))
    fpr = (1 - delta) / (1 + grown)
    tpr = delta + grown * fpr
    return fpr * (delta + tpr) / 2 + (1 - delta - fpr) * (tpr + 1) / 2 + delta


@dataclass(frozen=True)
class Attack:
    """How well scores tell members from non-members.

    Attributes:
        auroc, low, high: with a 95 % interval that resamples whole shadows.
        tpr: at the rates of `FPRS`: the share of members above a threshold that lets no more non-members through.
        shown: epsilon that these rates prove at 95 % if trials were independent, which within a shadow they nearly
            are; 0 where they prove none.
        roc: false- and true-positive rates, ascending.
    """

    auroc: float
    low: float
    high: float
    tpr: tuple[float, ...]
    shown: float
    roc: tuple[tuple[float, ...], tuple[float, ...]]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def judge(scores: Floats, included: Bools, delta: float, rng: np.random.Generator) -> Attack:
    """What scores `[shadows, targets]` are worth.

    Args:
        scores: higher where a target seems to be in.
        included: the truth.
        delta: of the claim that `shown` is compared with; 0 where there is none.
        rng: of the resamples.
    """
    flat, truth = scores.ravel(), included.ravel()
    area = auroc(flat, truth)
    assert area is not None
    drawn = []
    for _ in range(RESAMPLES):
        rows = rng.integers(len(scores), size=len(scores))
        found = auroc(scores[rows].ravel(), included[rows].ravel())
        drawn.append(area if found is None else found)
    low, high = np.quantile(drawn, [0.025, 0.975])
    rates = tuple(float(tpr_at_fpr(flat, truth, fpr) or 0.0) for fpr in FPRS)
    shown = shown_epsilon(flat[truth], flat[~truth], delta)
    return Attack(area, float(low), float(high), rates, shown, _roc(flat, truth))


def shown_epsilon(inside: Floats, outside: Floats, delta: float, beta: float = 0.05) -> float:
    """The largest epsilon that error rates refute: Clopper-Pearson bounds at fixed quantiles (Jagielski et al. 2020).

    log((TPR - delta) / FPR) and log((1 - FPR - delta) / (1 - TPR)), each rate at its unfavourable bound.

    Args:
        inside, outside: scores of members and of non-members.
        delta: of the claim.
        beta: probability that the answer is too high, in (0, 1).
    """
    from scipy.stats import beta as beta_law

    def bounds(hits: int, count: int) -> tuple[float, float]:
        level = beta / (4 * len(THRESHOLDS))
        low = 0.0 if hits == 0 else float(beta_law.ppf(level, hits, count - hits + 1))
        return low, 1.0 if hits == count else float(beta_law.ppf(1 - level, hits + 1, count - hits))

    best = 0.0
    for threshold in np.quantile(outside, THRESHOLDS, method="higher"):
        caught = bounds(int((inside >= threshold).sum()), len(inside))
        alarms = bounds(int((outside >= threshold).sum()), len(outside))
        for gained, lost in ((caught[0] - delta, alarms[1]), (1 - alarms[1] - delta, 1 - caught[0])):
            if gained > 0 and lost > 0:
                best = max(best, math.log(gained / lost))
    return best


def _roc(scores: Floats, truth: Bools) -> tuple[tuple[float, ...], tuple[float, ...]]:
    order = np.argsort(-scores, kind="stable")
    ends = np.append(scores[order][1:] != scores[order][:-1], True)
    caught, alarms = (np.cumsum(part[order])[ends] / max(1, part.sum()) for part in (truth, ~truth))
    return (0.0, *alarms.tolist()), (0.0, *caught.tolist())
