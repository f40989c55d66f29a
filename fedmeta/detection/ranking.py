"""How well scores tell malicious from honest: AUROC, AUPRC, and the share that is caught at a bounded false-alarm rate.

A positive is malicious; a higher score is more suspicious. Equal scores stand or fall together: no order among them is
assumed. A score of NaN is no score, and is left out with its label; infinite scores rank as they are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmeta.estimates import TAIL, Estimate

FPR = 0.05
"""The false-alarm rate of `tpr_at_fpr`, where none is given."""

RESAMPLES = 2000

Scores = Sequence[float] | npt.NDArray[np.floating]
Labels = Sequence[bool] | npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ranking:
    """What a set of scores is worth; all in [0, 1].

    Attributes:
        auroc: chance 1/2; below it the scores point the wrong way.
        auprc: average precision; chance is the share of positives.
        tpr_at_fpr: at `FPR`.
    """

    auroc: float
    auprc: float
    tpr_at_fpr: float


def ranking(scores: Scores, positive: Labels) -> Ranking | None:
    """All three; None where there is no positive or no negative with a score."""
    found = auroc(scores, positive), average_precision(scores, positive), tpr_at_fpr(scores, positive)
    a, b, c = found
    return None if a is None or b is None or c is None else Ranking(a, b, c)


def auroc(scores: Scores, positive: Labels) -> float | None:
    """P(score of a positive > score of a negative) + P(equal) / 2 (Hanley & McNeil 1982): the area under the ROC curve.

    Args:
        scores: `[n]`, higher is more suspicious.
        positive: `[n]`, who is malicious.

    Returns:
        In [0, 1]; None where there is no positive or no negative with a score.

    >>> auroc([0.9, 0.5, 0.5, 0.1], [True, True, False, False])
    0.875
    """
    caught, alarms = _thresholds(scores, positive)
    if not caught[-1] or not alarms[-1]:
        return None
    # Trapezia: within equal scores a positive beats half of the negatives.
    area = (np.diff(alarms) * (caught[1:] + caught[:-1])).sum() / 2
    return float(area / (caught[-1] * alarms[-1]))


def auroc_over_groups(
    positive: Sequence[Scores], negative: Sequence[Scores], *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate | None:
    """`auroc` of the scores of all episodes, with a percentile interval that draws whole episodes.

    Queries of one episode share an adapted model and are not independent, so that a resample takes all of an episode's
    scores or none (cluster bootstrap; Davison & Hinkley 1997, 3.8). Intervals of few episodes are too narrow.

    Args:
        positive: for each episode its positives' scores, perhaps none.
        negative: for each episode its negatives'.
        resamples: drawn.
        seed: of these draws.

    Returns:
        Unknown bounds where the resamples show no spread; None where there is no positive or no negative with a score.

    >>> auroc_over_groups([[0.9, 0.5], [0.7]], [[0.5, 0.1], [0.8]]).mean
    0.7222222222222222
    """
    caught, passed = ([np.asarray(own, dtype=np.float64) for own in scores] for scores in (positive, negative))
    caught, passed = ([own[~np.isnan(own)] for own in scores] for scores in (caught, passed))
    counts = np.array([[len(own) for own in scores] for scores in (caught, passed)], dtype=np.float64)
    if not counts.sum(axis=1).all():
        return None
    wins = np.array([[_wins(high, low) for low in passed] for high in caught])
    groups = len(wins)
    weights = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=resamples)
    pairs = (weights @ counts[0]) * (weights @ counts[1])
    drawn = ((weights @ wins) * weights).sum(axis=1)[pairs > 0] / pairs[pairs > 0]
    low, high = np.quantile(drawn, [TAIL, 1 - TAIL])
    if not low < high:
        low = high = math.nan
    return Estimate(float(wins.sum() / counts.sum(axis=1).prod()), float(low), float(high), groups, "episodes")


def _wins(high: npt.NDArray[np.float64], low: npt.NDArray[np.float64]) -> float:
    """Pairs in which one of `high` is above one of `low`, equal ones by half."""
    ordered = np.sort(low)
    return float(sum(np.searchsorted(ordered, high, side=side).sum() for side in ("left", "right")) / 2)


def average_precision(scores: Scores, positive: Labels) -> float | None:
    """The area under the precision-recall curve as a step function: sum over thresholds of (R_k - R_{k-1}) P_k.

    Not interpolated, since lines between points of that curve promise too much (Davis & Goadrich 2006).
    Arguments and returns as for `auroc`; where all scores are equal it is the share of positives.

    >>> average_precision([0.9, 0.5, 0.5, 0.1], [True, True, False, False])
    0.8333333333333333
    """
    caught, alarms = _thresholds(scores, positive)
    if not caught[-1] or not alarms[-1]:
        return None
    precision = caught[1:] / (caught[1:] + alarms[1:])
    return float((np.diff(caught) * precision).sum() / caught[-1])


def tpr_at_fpr(scores: Scores, positive: Labels, fpr: float = FPR) -> float | None:
    """The largest share of positives above a threshold that lets through all but `fpr` of the negatives.

    Below 1 / fpr negatives (20 at 5 %) no false alarm is allowed. Arguments and returns as for `auroc`.

    >>> tpr_at_fpr([0.9, 0.5, 0.5, 0.1], [True, True, False, False])
    0.5
    """
    caught, alarms = _thresholds(scores, positive)
    if not caught[-1] or not alarms[-1]:
        return None
    allowed = alarms <= fpr * alarms[-1] + 1e-9
    return float(caught[allowed].max() / caught[-1])


def _thresholds(scores: Scores, positive: Labels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Positives and negatives at or above each threshold, from none to all: one more than there are distinct scores."""
    values, labels = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if values.shape != labels.shape or values.ndim != 1:
        raise ValueError(f"scores {values.shape} and labels {labels.shape} must be two lists of one length")
    known = ~np.isnan(values)
    values, labels = values[known], labels[known]
    order = np.argsort(-values, kind="stable")
    values, labels = values[order], labels[order]
    # A threshold stands behind the last of equal scores.
    ends = np.append(values[1:] != values[:-1], True)[: len(values)]
    caught, alarms = (np.cumsum(part, dtype=np.float64)[ends] for part in (labels, ~labels))
    return np.concatenate([[0.0], caught]), np.concatenate([[0.0], alarms])
