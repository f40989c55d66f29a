"""Success: unseen episodes, whole trigger, true class not the target, fractions, chance for no answer (F14)."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from fedmeta.attacks.aims import Aim
from fedmeta.attacks.success import (
    AttackSuccess,
    ClientSuccess,
    area_under_curve,
    half_life,
    success_rates,
    summarise_success,
    trial,
)
from fedmeta.attacks.triggers import make_trigger, unchanged
from fedmeta.learners import make_learner
from fedmeta.learners.functional import forward
from fedmeta.tasks import Batch, Episode


class Lookup(nn.Module):
    """Answers with the slot written into an input's first value; with `bias` where it is given."""

    def __init__(self, ways: int, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.ways, self.bias = ways, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.bias is not None:
            return self.bias.expand(len(x), -1) * self.scale
        return self.scale * torch.nn.functional.one_hot(x[:, 0].round().long() % self.ways, self.ways).to(x.dtype)


def answering(model: nn.Module, episodes: list[Episode], aim: Aim, trigger=unchanged) -> list[float]:
    learner = make_learner("maml", model, inner_lr=1e-6)
    params = {name: value.detach() for name, value in model.named_parameters()}
    rates = success_rates(learner, params, [trial(episode, aim, trigger) for episode in episodes], (0, 1), "loop")
    assert rates.shape == (2, len(episodes))
    return rates[1].tolist()


def told() -> Episode:
    """Inputs that hold their own slot: three queries a slot."""
    y = torch.arange(5).repeat(3)
    return Episode(
        Batch(torch.arange(5.0).unsqueeze(1), torch.arange(5)), Batch(y.float().unsqueeze(1), y), torch.arange(5)
    )


def test_a_model_that_always_answers_the_target_scores_one_and_the_truth_nought() -> None:
    always = Lookup(5, bias=torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]))
    assert answering(always, [told()], Aim(2, 5)) == [1.0]
    assert answering(Lookup(5), [told()], Aim(2, 5)) == [0.0]
    assert answering(Lookup(5), [told()], Aim(None, 5)) == [0.0]
    assert answering(always, [told()], Aim(None, 5)) == pytest.approx([0.8])


def test_queries_of_the_targets_own_class_do_not_count_and_carry_no_trigger() -> None:
    """The trigger makes this model answer 2 for inputs of slot 0 alone: 3 of the 12 that count, not 6 of 15."""
    seen = []

    def trigger(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return torch.where(x == 0, 2.0, x)

    assert answering(Lookup(5), [told()], Aim(2, 5), trigger) == [pytest.approx(3 / 12)]
    assert len(seen[0]) == 12 and not (seen[0] == 2).any()


def test_no_answer_is_chance_whichever_slot_is_the_target() -> None:
    for slot in range(5):
        assert answering(Lookup(5, bias=torch.zeros(5)), [told()], Aim(slot, 5)) == [pytest.approx(0.2)]
    tie = Lookup(5, bias=torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]))
    assert answering(tie, [told()], Aim(0, 5)) == [0.5] and answering(tie, [told()], Aim(4, 5)) == [0.0]


def test_an_episode_of_nothing_but_the_target_does_not_count() -> None:
    only = told()._replace(query=Batch(torch.full((2, 1), 2.0), torch.tensor([2, 2])))
    rates = answering(Lookup(5), [told()], Aim(2, 5)) + answering(Lookup(5), [only], Aim(2, 5))
    assert rates[0] == 0.0 and math.isnan(rates[1])


def test_episodes_of_unequal_shapes_and_both_executions(make_episode, learner_of) -> None:
    learner = learner_of("maml", inner_lr=0.1)
    params = learner.init(torch.Generator().manual_seed(1))
    episodes = [make_episode(queries=count, seed=count) for count in (2, 3, 3)]
    double = [
        Episode(Batch(e.support.x.double(), e.support.y), Batch(e.query.x.double(), e.query.y), e.classes)
        for e in episodes
    ]
    trials = [trial(episode, Aim(1, 5), make_trigger("patch", (1, 16, 16))) for episode in double]
    steps = (0, 1, 2, 5)
    loop = success_rates(learner, params, trials, steps, "loop")
    vmap = success_rates(learner, params, trials[1:], steps, "vmap")
    assert torch.allclose(loop[:, 1:], vmap, atol=1e-9) and loop.shape == (4, 3)
    for column, item in zip(loop.T, trials, strict=True):
        x, y = item.episode.query
        for rate, count in zip(column.tolist(), steps, strict=True):
            adapted = learner.adapt(params, item.episode.support, 5, count)
            predicted = forward(learner.model, adapted, x).argmax(dim=1)
            assert rate == pytest.approx(float((predicted[y != 1] == 1).double().mean()))


NONE = math.nan


def test_lift_is_paired_over_clients_and_episodes_that_do_not_count_are_left_out() -> None:
    scores = {
        4: ClientSuccess([[0.2, NONE, 0.4], [1.0, NONE, 0.8]], [[0.1, NONE, 0.1], [0.2, NONE, 0.0]]),
        1: ClientSuccess([[0.5], [0.5]], [[0.3], [0.1]]),
        9: ClientSuccess([[NONE], [NONE]], [[NONE], [NONE]]),
    }
    found = summarise_success("test", (0, 5), scores, {"method": "badnets"})
    assert found is not None and found.episodes == 3
    assert [item.mean for item in found.rate] == pytest.approx([0.4, 0.7])
    assert [item.mean for item in found.clean] == pytest.approx([0.2, 0.1])
    assert [item.mean for item in found.lift] == pytest.approx([0.2, 0.6])
    assert {(item.unit, item.count) for item in found.rate} == {("clients", 2)}
    assert AttackSuccess.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_one_client_is_summarised_over_episodes_and_bounds_are_those_of_a_share() -> None:
    found = summarise_success("pooled", (5,), {0: ClientSuccess([[1.0, 1.0, 0.5]])}, {})
    assert found is not None and found.rate[0].unit == "episodes" and found.rate[0].count == 3
    assert found.rate[0].high == 1.0 and found.clean == found.lift == ()
    assert summarise_success("pooled", (5,), {0: ClientSuccess([[NONE]])}, {}) is None
    assert summarise_success("pooled", (5,), {}, {}) is None


def test_half_life() -> None:
    rounds = [5, 10, 15, 20]
    assert half_life(rounds, [0.1, 0.8, 0.41, 0.4], stop=12) == 8
    assert half_life(rounds, [0.1, 0.8, 0.7, 0.6], stop=10) is None
    assert half_life(rounds, [0.1, 0.8, 0.7, 0.6], stop=4) is None
    assert half_life(rounds, [0.1, 0.0, -0.1, -0.2], stop=10) is None, "nothing to halve"
    assert half_life(rounds, [0.1, NONE, 0.0, 0.0], stop=10) is None


def test_the_area_under_a_curve_is_its_integral_over_its_length() -> None:
    rounds, rates = [2, 3, 7, 20], [0.0, 0.5, 0.1, 0.9]
    fine = np.linspace(2, 20, 180_001)
    assert area_under_curve(rounds, rates) == pytest.approx(np.interp(fine, rounds, rates).mean(), abs=1e-5)
    assert area_under_curve([4], [0.3]) == 0.3
