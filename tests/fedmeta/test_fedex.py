"""FedEx: the update by hand, its gradient without bias, what outliers may do, and a best arm that is found."""

import math

import numpy as np
import pytest
import torch

from fedmeta.errors import ConfigurationError
from fedmeta.experiment_file import parse_experiment
from fedmeta.fedex import FedEx, draw
from fedmeta.workload import Workload

RATES = {"fedex": {"configurations": [{"learner": {"inner_lr": 0.01}}, {"learner.inner_lr": 0.1}]}}
SINE = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 3},
    "task": {"ways": 1},
    "model": {"name": "sinusoid"},
    "learner": {"name": "fomaml", "inner_lr": 0.05},
    **RATES,
}


def test_rounds_by_hand() -> None:
    """Two rounds of the equations of Khodak et al. 2021, algorithm 2, written anew."""
    rounds = [([0, 1, 1, 2], [1.0, 1.2, 1.4, 0.9]), ([2, 2, 0, 1], [0.8, 1.0, 1.1, 0.9])]
    p, squares = np.full(3, 1 / 3), 0.0
    found = FedEx.uniform(3)
    for drawn, losses in rounds:
        baseline, g = sum(losses) / 4, np.zeros(3)
        for j, loss in zip(drawn, losses, strict=True):
            g[j] += 0.25 * (loss - baseline) / p[j]
        squares += max(abs(g)) ** 2
        p = p * np.exp(-math.sqrt(2 * math.log(3) / squares) * g)
        p /= p.sum()
        found = found.learn(drawn, losses)
    assert found.probabilities.tolist() == pytest.approx(p.tolist())
    assert found.squares == pytest.approx(squares) and found.baseline == pytest.approx(0.95)
    assert FedEx.from_tensor(found.to_tensor()).to_tensor().equal(found.to_tensor()) and found.best == int(p.argmax())


def test_the_gradient_has_no_bias() -> None:
    """Over all draws of three clients, the direction is that of the expected losses, less a constant of all arms."""
    start = FedEx(torch.tensor([0.5, -0.5, 0.1], dtype=torch.float64))
    p, arms = start.probabilities.numpy(), np.array([0.3, 0.5, 0.9])
    mean = np.zeros(3)
    for drawn in np.ndindex(3, 3, 3):
        losses, g = arms[list(drawn)], np.zeros(3)
        np.add.at(g, list(drawn), (losses - losses.mean()) / 3)
        mean += np.prod(p[list(drawn)]) * g / p
    expected = (arms - p @ arms) * 2 / 3  # the mean over all clients for that over the others: a factor (n - 1) / n
    assert mean == pytest.approx(expected)


def test_one_client_that_diverged_or_lies_is_bounded() -> None:
    """Whatever it says above the rest, the round is the same; what says nothing usable changes nothing."""
    drawn, usual = [0, 1, 2, 0], [1.0, 1.1, 1.2]
    wild = [FedEx.uniform(3).learn(drawn, [*usual, loss]).to_tensor() for loss in (50.0, 1e30, math.inf, math.nan)]
    assert all(torch.equal(wild[0], other) for other in wild)
    low = [FedEx.uniform(3).learn(drawn, [*usual, loss]).to_tensor() for loss in (-50.0, -1e30, -1e308, -math.inf)]
    assert all(torch.equal(low[0], other) for other in low) and low[0].abs().max() < 10
    rewards, losses = [-20.0, -30.0, -22.0], [2.0, 1.0, 1.8]
    of_both = [FedEx.uniform(2).learn([0, 1, 0], told).probabilities.tolist() for told in (rewards, losses)]
    assert of_both[0] == pytest.approx(of_both[1]), "what is below 0 may be honest"
    known = FedEx.uniform(3).learn(drawn, [*usual, 1.0])
    assert known.learn([0, 1], [1e200, -1e200]) is known, "squares beyond float64"
    for losses in ([], [math.nan] * 2):
        assert known.learn([0] * len(losses), losses) is known
    assert FedEx.uniform(3).learn([1], [0.5]).probabilities.tolist() == pytest.approx([1 / 3] * 3), "nothing to compare"
    alone = known.learn([1], [0.5])
    assert alone.probabilities[1] > known.probabilities[1], "one client is compared with the round before"


def test_it_finds_the_best_arm() -> None:
    rng, found = np.random.default_rng(0), FedEx.uniform(4)
    arms = np.array([1.5, 1.3, 1.0, 1.6])
    for round in range(1, 61):
        drawn = [draw(found.probabilities.tolist(), 0, round, client) for client in range(8)]
        found = found.learn(drawn, arms[drawn] + rng.normal(0, 0.15, 8))
    assert found.best == 2 and float(found.probabilities[2]) > 0.9


def test_draws_follow_the_probabilities_and_depend_on_nothing_else() -> None:
    p = [0.1, 0.6, 0.0, 0.3]
    drawn = [draw(p, 7, 3, client) for client in range(4000)]
    assert np.bincount(drawn, minlength=4) / 4000 == pytest.approx(p, abs=0.03)
    assert drawn == [draw(p, 7, 3, client) for client in range(4000)] != [draw(p, 7, 4, c) for c in range(4000)]


def test_a_configuration_is_the_experiment_with_its_keys() -> None:
    workload = Workload(parse_experiment(SINE))
    low, high = workload.configured(0), workload.configured(1)
    assert (low.learner.inner_lr, high.learner.inner_lr, workload.learner.inner_lr) == (0.01, 0.1, 0.05)
    assert low.federation is workload.federation and workload.configured(0) is low
    assert low.spec == workload.spec and not low.experiment.fedex.configurations
    plain = {key: value for key, value in SINE.items() if key != "fedex"}
    assert parse_experiment(plain).hash != workload.experiment.hash
    assert parse_experiment(plain, {"fedex.episodes": 9}).hash == parse_experiment(plain).hash


@pytest.mark.parametrize(
    ("configurations", "why"),
    [
        ([{"learner.inner_lr": 0.1}], "has one entry"),
        ([{"learner.inner_lr": 0.1}, {"server.rounds": 3}], r"\[1\] sets 'server.rounds'"),
        ([{"learner.inner_lr": 0.1}, {"learner.name": "maml"}], r"\[1\] sets 'learner.name'"),
        ([{"learner.inner_lr": 0.1}, {"learner.inner_lr": -1.0}], r"\[1\]: learner.inner_lr = -1.0"),
        ([{"learner.inner_lr": 0.1}, {"learner.inner_rl": 0.1}], r"\[1\]: .*did you mean 'inner_lr'"),
    ],
)
def test_what_cannot_be_learnt_is_refused(configurations, why) -> None:
    with pytest.raises(ConfigurationError, match=why):
        parse_experiment({**SINE, "fedex": {"configurations": configurations}})


def test_hidden_losses_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"which privacy.unit is set to hide"):
        parse_experiment({**SINE, "privacy": {"unit": "client", "noise_multiplier": 1.0}})
    with pytest.raises(ConfigurationError, match=r"which secagg.enabled is set to hide"):
        parse_experiment({**SINE, "secagg": {"enabled": True}})
