"""Accuracy of adapted models under attack, on given episodes: the figures that a report states."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fedmeta.estimates import Estimate, estimate, json_object, within
from fedmeta.evasion.ball import Ball
from fedmeta.evasion.base import Evasion
from fedmeta.evasion.pgd import input_gradient
from fedmeta.evasion.plan import Plan
from fedmeta.evasion.target import target_of
from fedmeta.execution import Execution, over_tasks, resolve, stackable, to_device
from fedmeta.learners.base import MetaLearner
from fedmeta.learners.draws import task_seed
from fedmeta.params import Params
from fedmeta.tasks import Episode


class Attacked(NamedTuple):
    """One episode after an attack.

    Attributes:
        x: what was moved: queries `[n, *shape]`, or one set of examples `[1, examples, *shape]`.
        answers: `[queries]`, the class that each query is taken for.
    """

    x: Tensor
    answers: Tensor


@dataclass(frozen=True)
class Figure:
    """One attack at one radius.

    Attributes:
        attack: its name; None: the worst over all.
        eps: radius.
        accuracy: mean over episodes with its 95 % interval.
        seconds: per query; None for the worst.
    """

    attack: str | None
    eps: float
    accuracy: Estimate
    seconds: float | None = None


@dataclass(frozen=True)
class Robustness:
    """A model on its episodes.

    Attributes:
        clean: accuracy without an attack.
        figures: every attack at every radius.
        worst: for every radius, each query counted right only if it is so under every attack; where supports move, an
            episode counts with its worst attack.
        zero_gradients: share of queries (of supports, where these move) whose gradient is exactly zero at the clean
            input; more than 0 is a sign of masking. None where no attack asks for gradients.
    """

    clean: Estimate
    figures: tuple[Figure, ...]
    worst: tuple[Figure, ...]
    zero_gradients: float | None

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "clean": self.clean.to_json(),
            "attacks": [asdict(figure, dict_factory=json_object) for figure in self.figures],
            "worst": [asdict(figure, dict_factory=json_object) for figure in self.worst],
            "zero_gradients": self.zero_gradients,
        }


def robustness(
    learner: MetaLearner,
    params: Params,
    episodes: Sequence[Episode],
    plan: Plan,
    *,
    execution: Execution = "auto",
    chunk_size: int | None = None,
    said: Callable[[Figure], None] = lambda figure: None,
) -> Robustness:
    """Attack every episode by every attack at every radius.

    Args:
        learner: that adapts.
        params: the model, on the device to compute on.
        episodes: clean; the same for all models that are compared.
        plan: the threat model; checked first.
        execution: `loop`, `vmap` over episodes, or by the model (`fedmeta.execution.resolve`).
        chunk_size: episodes at once under vmap; None for all.
        said: is told every figure as it is known.

    Raises:
        ConfigurationError: see `Plan.check`.
    """
    plan.check(learner, params, episodes)
    run = _Runner(learner, params, episodes, plan, _way(execution, learner, params, episodes), chunk_size)
    clean = run.correct(None, plan.ball(0.0))
    figures, worst = [], []
    for eps in plan.eps:
        every = [clean]
        for name, evasion in plan.attacks.items():
            begun = time.perf_counter()
            every.append(run.correct(evasion, plan.ball(eps)))
            seconds = (time.perf_counter() - begun) / sum(len(episode.query.y) for episode in episodes)
            figures.append(Figure(name, eps, _accuracy(every[-1]), seconds))
            said(figures[-1])
        worst.append(Figure(None, eps, _accuracy(_worst(every, together=plan.on != "query"))))
        said(worst[-1])
    white = any(not evasion.black_box for evasion in plan.attacks.values())
    return Robustness(_accuracy(clean), tuple(figures), tuple(worst), run.zero_gradients() if white else None)


def attack_episode(
    learner: MetaLearner, params: Params, episode: Episode, evasion: Evasion | None, ball: Ball, plan: Plan
) -> Attacked:
    """Attack one episode; None leaves it as it is. A function of tensors that runs under `vmap`.

    Args:
        learner: that adapts.
        params: the model.
        episode: clean, on the device of `params`.
        evasion: the attack.
        ball: how far inputs may move: `plan.ball(eps)`.
        plan: says what moves, the steps of adaptation and the seed.
    """
    gradients = evasion is not None and not evasion.black_box
    target = target_of(learner, params, episode, plan.on, steps=plan.steps, gradients=gradients)
    x = target.x
    if evasion is not None:
        x = evasion(target.logits_of, x, target.y, ball, _seed(episode, plan.seed))
    with torch.no_grad():
        answers = target.logits_of(x).argmax(dim=-1)
    return Attacked(x, answers.reshape(episode.query.y.shape))


@dataclass(frozen=True)
class _Runner:
    learner: MetaLearner
    params: Params
    episodes: Sequence[Episode]
    plan: Plan
    way: str
    chunk_size: int | None

    def correct(self, evasion: Evasion | None, ball: Ball) -> list[Tensor]:
        """For each episode `[queries]` float64, 1 where a query is still right."""

        def judge(params: Params, episode: Episode) -> Tensor:
            found = attack_episode(self.learner, params, episode, evasion, ball, self.plan)
            return (found.answers == episode.query.y).double()

        return [found.cpu() for found in self._each(judge)]

    def zero_gradients(self) -> float:
        """See `Robustness`."""

        def judge(params: Params, episode: Episode) -> Tensor:
            target = target_of(self.learner, params, episode, self.plan.on, steps=self.plan.steps)
            slope = input_gradient(target.logits_of, target.x, target.y).flatten(1)
            return (slope == 0).all(dim=1).double()

        return torch.cat(self._each(judge)).mean().item()

    def _each(self, judge: Callable[[Params, Episode], Tensor]) -> list[Tensor]:
        if self.way == "vmap":
            return list(over_tasks(judge, self.params, self.episodes, "vmap", self.chunk_size).unbind())
        device = next(iter(self.params.values())).device
        return [judge(self.params, to_device(episode, device)) for episode in self.episodes]


def _way(execution: Execution, learner: MetaLearner, params: Params, episodes: Sequence[Episode]) -> str:
    way = resolve(execution, learner.model, next(iter(params.values())).device)
    return "loop" if execution == "auto" and not stackable(episodes) else way


def _seed(episode: Episode, seed: int) -> Tensor:
    own = torch.full((1,), seed, dtype=torch.float64, device=episode.query.x.device)
    return task_seed(episode.support.x, episode.query.x, own)


def _worst(every: Sequence[list[Tensor]], *, together: bool) -> list[Tensor]:
    """By query, or by episode where the queries of one fall `together`, by one support."""
    if together:
        return [min(own, key=lambda found: float(found.mean())) for own in zip(*every, strict=True)]
    return [torch.stack(own).amin(dim=0) for own in zip(*every, strict=True)]


def _accuracy(correct: Sequence[Tensor]) -> Estimate:
    return within(estimate([own.mean().item() for own in correct], "episodes"), 0.0, 1.0)
