"""Attacks on defences that draw at random: expectation over transformation (Athalye et al., ICML 2018, section 2)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fedmeta.deployment.random_finetune import RandomFineTune
from fedmeta.estimates import Estimate, estimate, within
from fedmeta.evasion.ball import Ball
from fedmeta.evasion.base import Evasion, Logits
from fedmeta.learners.base import MetaLearner
from fedmeta.learners.draws import task_seed
from fedmeta.learners.functional import ways_of
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode


@dataclass(frozen=True)
class AgainstChance:
    """Accuracy over episodes of a defence that draws at random, its draws being fresh to every attacker.

    Attributes:
        undefended_clean, undefended: of the learner itself, without and under the attack.
        clean: of the defended model.
        transferred: under an attack on the undefended model, which does not know of the defence.
        one_draw: under an attack on one draw of the attacker's own.
        averaged: under the attack whose gradient is the mean over many draws (EOT). This is what the defence is worth.
        draws: of that attack.
    """

    undefended_clean: Estimate
    undefended: Estimate
    clean: Estimate
    transferred: Estimate
    one_draw: Estimate
    averaged: Estimate
    draws: int


def over_draws(models: Sequence[MetaLearner], params: Params, support: Batch, ways: int) -> Logits:
    """Answers of several models to the same inputs: `[n, *shape]` to `[n, models, ways]`, with labels `[n, models]`.

    An attack on it raises the mean loss over the models, whose gradient is the mean of theirs.
    """
    adapted = [(model, model.adapt(params, support, ways)) for model in models]
    return lambda x: torch.stack([model.predict(own, x) for model, own in adapted], dim=1)


def judge_chance(
    defence: RandomFineTune,
    params: Params,
    episodes: Sequence[Episode],
    evasion: Evasion,
    ball: Ball,
    *,
    draws: int = 16,
    judged: int = 4,
) -> AgainstChance:
    """Judge random fine-tuning under attackers who know ever more of it; queries are attacked, supports are clean.

    Args:
        defence: whose own seed, and the ones after it, are the defender's.
        params: the model.
        episodes: clean.
        evasion: the attack, which asks for gradients.
        ball: how far queries may move.
        draws: of the averaging attacker, none of which is the defender's.
        judged: of the defender, over which accuracy is a mean.
    """
    defender: list[Any] = [replace(defence, seed=defence.seed + index) for index in range(judged)]
    attacker: list[Any] = [replace(defence, seed=defence.seed + 10_000 + index) for index in range(draws)]
    columns: list[list[float]] = []
    for episode in episodes:
        support, (x, y), ways = episode.support, episode.query, ways_of(episode)
        seed = task_seed(support.x, x)
        plain = over_draws([defence.learner], params, support, ways)
        answers = over_draws(defender, params, support, ways)
        many = over_draws(attacker, params, support, ways)
        known = {"plain": plain, "one": _first(many), "many": many}
        moved = {name: evasion(of, x, _labels(of, x, y), ball, seed) for name, of in known.items()}
        columns.append(
            [
                _accuracy(plain, x, y),
                _accuracy(plain, moved["plain"], y),
                _accuracy(answers, x, y),
                *(_accuracy(answers, moved[name], y) for name in known),
            ]
        )
    found = [within(estimate(values, "episodes"), 0.0, 1.0) for values in zip(*columns, strict=True)]
    return AgainstChance(found[0], found[1], found[2], found[3], found[4], found[5], draws)


def _first(of: Logits) -> Logits:
    """The first model's answers, `[n, 1, ways]`."""
    return lambda x: of(x)[:, :1]


@torch.no_grad()
def _labels(of: Logits, x: Tensor, y: Tensor) -> Tensor:
    """Labels for every answer, `[n, models]`."""
    return y.unsqueeze(1).expand(-1, of(x[:1]).shape[1])


@torch.no_grad()
def _accuracy(of: Logits, x: Tensor, y: Tensor) -> float:
    return (of(x).argmax(dim=-1) == y.unsqueeze(1)).double().mean().item()
