"""What detectors are worth: against an attack that does not know them, and against one that does."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from fedmeta.detection.ranking import auroc_over_groups, tpr_at_fpr
from fedmeta.evasion.ball import Ball
from fedmeta.evasion.losses import margin
from fedmeta.evasion.pgd import PGD, ascend
from fedmeta.learners.base import MetaLearner
from fedmeta.learners.draws import task_seed
from fedmeta.params import Params
from fedmeta.query_detection.base import Detector, View
from fedmeta.tasks import Episode

CONFIDENT = 1.0
"""The margin in logits that an adaptive attacker is content with."""


@dataclass(frozen=True)
class Effort:
    """How hard the attackers try.

    Attributes:
        steps: of the plain PGD, and of each run of the adaptive one.
        weights: of the detector's score against the margin, in units of its spread on clean queries: a run for each.
        step: length of an adaptive step, in units of the ball's radius.
    """

    steps: int = 20
    weights: tuple[float, ...] = (0.3, 3.0, 30.0)
    step: float = 0.1


@dataclass(frozen=True)
class Verdict:
    """One detector against both attackers; None where one of them never succeeded, or no clean query was right.

    Attributes:
        plain: against PGD, `auroc` (area under the ROC curve) with `low` and `high` (95 %, over episodes; None where
            they cannot be told), and `tpr`, the share caught at 5 % false alarms.
        adaptive: against the attacker who knows the detector.
        successes: successful attacks of either, on which alone a detector is judged.
        clean: clean queries that are answered rightly, against which it is judged.
    """

    plain: Mapping[str, float | None] | None
    adaptive: Mapping[str, float | None] | None
    successes: tuple[int, int]
    clean: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


@dataclass
class _Found:
    """Scores of one detector, gathered over episodes."""

    clean: list[Tensor] = field(default_factory=list)
    plain: list[Tensor] = field(default_factory=list)
    adaptive: list[Tensor] = field(default_factory=list)


def judge(
    learner: MetaLearner,
    params: Params,
    episodes: Sequence[Episode],
    detectors: Mapping[str, Detector],
    ball: Ball,
    effort: Effort = Effort(),
) -> dict[str, Verdict]:
    """Judge fitted detectors on episodes' queries, whose supports are clean.

    Only queries that are right when clean and wrong when attacked count as attacks: what fails needs no detection. The
    adaptive attacker starts from the plain attack's point and climbs min(margin, 1) - weight * score; of all points
    that deceive the model it takes the one of the lowest score, so that it never does worse than the plain one.

    Args:
        learner, params: the model.
        episodes: clean.
        detectors: name -> detector, fitted.
        ball: of the attacks.
        effort: of the attackers.
    """
    found = {name: _Found() for name in detectors}
    views = [View.of(learner, params, episode) for episode in episodes]
    with torch.no_grad():
        right = [view.logits(e.query.x).argmax(dim=-1) == e.query.y for view, e in zip(views, episodes, strict=True)]
        for name, detector in detectors.items():
            for view, episode, ok in zip(views, episodes, right, strict=True):
                found[name].clean.append(detector.scores(view, episode.query.x)[ok])
    spreads = {name: _spread(torch.cat(own.clean)) for name, own in found.items()}
    for view, episode, ok in zip(views, episodes, right, strict=True):
        x, y = episode.query.x, episode.query.y
        moved = PGD(steps=effort.steps)(view.logits, x, y, ball, task_seed(episode.support.x, x))
        hit = ok & _deceived(view, moved, y)
        for name, detector in detectors.items():
            with torch.no_grad():
                found[name].plain.append(detector.scores(view, moved)[hit])
            scores, success = lowest_scores(view, detector, x, y, moved, ball, spreads[name], effort)
            found[name].adaptive.append(scores[ok & success])
    return {name: _verdict(own) for name, own in found.items()}


def lowest_scores(
    view: View, detector: Detector, x: Tensor, y: Tensor, start: Tensor, ball: Ball, spread: float, effort: Effort
) -> tuple[Tensor, Tensor]:
    """The attacker who knows the detector: each query's lowest score of a point that deceives, and if there is one.

    Args:
        view: the model in use.
        detector: fitted.
        x, y: clean queries `[n, *shape]` and their labels.
        start: what the attack that does not know the detector made of them; one of the points that are compared.
        ball: how far queries may move.
        spread: what one unit of the score is worth, > 0.
        effort: of the attack.

    Returns:
        `[n]` scores, infinite where no point deceives the model, and `[n]` bool.
    """

    def beside(point: Tensor) -> Tensor:
        return torch.cat([view.logits(point), detector.scores(view, point).unsqueeze(-1) / spread], dim=-1)

    best, success = torch.full(y.shape, torch.inf, dtype=x.dtype), torch.zeros_like(y, dtype=torch.bool)
    for weight in (0.0, *effort.weights):
        point = start
        if weight:
            point = ascend(
                beside,
                x,
                y,
                ball,
                start=start,
                steps=effort.steps,
                step=effort.step,
                loss=lambda out, y, weight=weight: (  # type: ignore[misc]
                    margin(out[..., :-1], y).clamp_max(CONFIDENT) - weight * out[..., -1]
                ),
            )
        with torch.no_grad():
            deceived, scores = _deceived(view, point, y), detector.scores(view, point)
        lower = deceived & (scores < best)
        best, success = torch.where(lower, scores, best), success | deceived
    return best, success


def _deceived(view: View, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return view.logits(x).argmax(dim=-1) != y


def _spread(scores: Tensor) -> float:
    """What one unit of a score is worth: its standard deviation on clean queries, never quite zero."""
    size = float(scores.std(correction=0)) if len(scores) else 0.0
    return max(size, 1e-3)


def _verdict(own: _Found) -> Verdict:
    clean = _lists(own.clean)
    plain, adaptive = _lists(own.plain), _lists(own.adaptive)
    counts = [sum(map(len, scores)) for scores in (plain, adaptive, clean)]
    return Verdict(_rated(plain, clean), _rated(adaptive, clean), (counts[0], counts[1]), counts[2])


def _rated(attacked: Sequence[list[float]], clean: Sequence[list[float]]) -> dict[str, float | None] | None:
    area = auroc_over_groups(attacked, clean)
    positive, negative = (list(chain.from_iterable(scores)) for scores in (attacked, clean))
    caught = tpr_at_fpr(positive + negative, [True] * len(positive) + [False] * len(negative))
    if area is None or caught is None:
        return None
    told = area.to_json()
    return {"auroc": area.mean, "low": told["low"], "high": told["high"], "tpr": caught}


def _lists(scores: Sequence[Tensor]) -> list[list[float]]:
    return [own.tolist() for own in scores]
