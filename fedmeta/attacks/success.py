"""Attack success after adaptation: whole trigger, episodes that no one trained on, lift over a clean model.

Chance is 1 / ways: a rate says little without the same trigger's rate on a model that nobody attacked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from fedmeta.attacks.aims import Aim
from fedmeta.attacks.triggers import Trigger
from fedmeta.estimates import Estimate, Unit, estimate, json_object, within
from fedmeta.evaluation import fitting_episodes
from fedmeta.execution import Execution, over_tasks, resolve, stackable
from fedmeta.learners.base import MetaLearner
from fedmeta.learners.functional import ways_of
from fedmeta.params import Params
from fedmeta.tasks import AnsweringTask, Batch, Episode


@dataclass(frozen=True)
class Trial:
    """One episode as the attacker would have it: `episode` holds what the model sees, `aim` what is wanted of it."""

    episode: Episode
    aim: Aim


def trial(episode: Episode, aim: Aim, trigger: Trigger) -> Trial:
    """An episode whose queries carry the trigger, but for those of the target's own class, which are left alone."""
    x, eligible = episode.query.x.clone(), aim.eligible(episode.query.y)
    x[eligible] = trigger(x[eligible])
    return Trial(episode._replace(query=Batch(x, episode.query.y)), aim)


def success_rates(
    learner: MetaLearner,
    params: Params,
    trials: Sequence[Trial],
    steps: Sequence[int],
    execution: Execution = "auto",
    chunk_size: int | Literal["auto"] | None = None,
) -> Tensor:
    """Share of the queries not of the target's class that get the wanted answer, after every number of steps.

    What counts as an answer, the task says (`fedmeta.tasks.AnsweringTask`).

    Args:
        learner: whose `trajectory` and `predict` are used.
        params: the model.
        trials: at least one.
        steps: ascending numbers of adaptation steps.
        execution, chunk_size: as for `fedmeta.evaluation.evaluate`.

    Returns:
        `[len(steps), trials]` fractions; NaN for an episode without an eligible query.
    """
    episodes = [
        item.episode._replace(query=Batch(item.episode.query.x, item.aim.judged_by(item.episode.query.y)))
        for item in trials
    ]

    task = cast(AnsweringTask, learner.task)

    def judge(params: Params, episode: Episode) -> Tensor:
        shares = []
        for adapted in learner.trajectory(params, episode.support, ways_of(episode), steps):
            shares.append(task.answers(learner.predict(adapted, episode.query.x), episode.query.y))
        return torch.stack(shares)

    way = resolve(execution, learner.model, next(iter(params.values())).device)
    if execution == "auto" and not stackable(episodes):
        way = "loop"
    groups = [episodes] if stackable(episodes) else [[episode] for episode in episodes]
    with torch.no_grad():
        if chunk_size == "auto":
            chunk_size = fitting_episodes(judge, params, episodes[0]) if way == "vmap" else None
        found = [one for group in groups for one in over_tasks(judge, params, group, way, chunk_size)]
    columns = []
    for item, shares in zip(trials, found, strict=True):
        eligible = item.aim.eligible(item.episode.query.y)
        columns.append(item.aim.success(shares.cpu())[:, eligible].mean(dim=1))
    return torch.stack(columns, dim=1)


@dataclass(frozen=True)
class ClientSuccess:
    """What one client measured: rates `[steps][episodes]` of the model, and of a clean one where there is one.

    An episode that does not count, since it does not hold the target or has no other query, is NaN.
    """

    rate: Sequence[Sequence[float]]
    clean: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class AttackSuccess:
    """How often the attacker got the wanted answer, in [0, 1].

    Attributes:
        split: `validation`, `test` or `pooled`.
        steps: ascending numbers of adaptation steps.
        rate: an Estimate for every number of steps.
        clean: of the clean model on the same episodes with the same trigger; empty where there is none.
        lift: of the paired differences rate - clean, in [-1, 1]; empty likewise.
        episodes: how many counted.
        protocol: the attack, its target and trigger: what must stand beside the number.
    """

    split: str
    steps: tuple[int, ...]
    rate: tuple[Estimate, ...]
    clean: tuple[Estimate, ...]
    lift: tuple[Estimate, ...]
    episodes: int
    protocol: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `AttackSuccess.from_json` reads it back."""
        return asdict(self, dict_factory=json_object)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "AttackSuccess":
        """Rebuild from `to_json`."""
        estimates = {key: tuple(map(Estimate.from_json, data[key])) for key in ("rate", "clean", "lift")}
        return cls(**{**data, **estimates, "steps": tuple(data["steps"])})


def summarise_success(
    split: str, steps: Sequence[int], scores: Mapping[int, ClientSuccess], protocol: Mapping[str, Any]
) -> AttackSuccess | None:
    """Summarise clients' rates; clients are the independent units where several count, else episodes are.

    Args:
        split: of the clients.
        steps: the numbers of adaptation steps, ascending.
        scores: client id -> what it measured.
        protocol: what must stand beside the numbers.

    Returns:
        None where no episode counts.
    """
    counted = {client: _counted(own) for client, own in sorted(scores.items())}
    present = [(rate, clean) for rate, clean in counted.values() if rate.shape[1]]
    if not present:
        return None
    unit: Unit = "clients" if len(present) > 1 else "episodes"

    def pool(tables: Sequence[np.ndarray], low: float) -> tuple[Estimate, ...]:
        # A row of `of_steps` is one number of steps: its client means, or the only client's episodes.
        of_steps = np.stack([table.mean(axis=1) for table in tables], axis=1) if unit == "clients" else tables[0]
        return tuple(within(estimate(row, unit), low, 1.0) for row in of_steps)

    paired = all(clean is not None for _, clean in present)
    cleans = [clean for _, clean in present if clean is not None] if paired else []
    return AttackSuccess(
        split=split,
        steps=tuple(steps),
        rate=pool([rate for rate, _ in present], 0.0),
        clean=pool(cleans, 0.0) if paired else (),
        lift=pool([rate - clean for rate, clean in present if clean is not None], -1.0) if paired else (),
        episodes=sum(rate.shape[1] for rate, _ in present),
        protocol=dict(protocol),
    )


def _counted(own: ClientSuccess) -> tuple[np.ndarray, np.ndarray | None]:
    """Rates of the episodes that count, and the clean model's of the same."""
    rate = np.asarray(own.rate, dtype=np.float64)
    kept = ~np.isnan(rate).any(axis=0)
    clean = np.asarray(own.clean, dtype=np.float64)[:, kept] if len(own.clean) else None
    return rate[:, kept], clean


def half_life(rounds: Sequence[int], rates: Sequence[float], stop: int) -> int | None:
    """Rounds after the attackers' last one until their success has halved: the first measured.

    Args:
        rounds: in which success was measured, ascending.
        rates: success, or better lift, in each.
        stop: the attackers' last round; the rate then is the last one measured until it.

    Returns:
        None where it has not halved by the last measurement, or where there was none (above 0) to halve.

    >>> half_life([5, 10, 15, 20], [0.2, 0.8, 0.5, 0.3], stop=10)
    10
    """
    before = [rate for round, rate in zip(rounds, rates, strict=True) if round <= stop]
    if not before or not before[-1] > 0:
        return None
    later = (round for round, rate in zip(rounds, rates, strict=True) if round > stop and rate <= before[-1] / 2)
    first = next(later, None)
    return None if first is None else first - stop


def area_under_curve(rounds: Sequence[int], rates: Sequence[float]) -> float:
    """The mean of a success curve over the rounds from its first to its last measurement, by trapezia.

    >>> area_under_curve([0, 10, 30], [0.0, 1.0, 1.0])
    0.8333333333333334
    """
    if len(rounds) == 1:
        return float(rates[0])
    widths, heights = np.diff(rounds), np.asarray(rates, dtype=np.float64)
    return float((widths * (heights[1:] + heights[:-1])).sum() / 2 / widths.sum())
