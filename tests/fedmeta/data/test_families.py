"""Data that draw tasks: who has which family, and what an episode of rollouts holds."""

import numpy as np
import pytest
import torch

from fedmeta.data import PARTITIONS, load_dataset
from fedmeta.data.base import EpisodeShape
from fedmeta.errors import ConfigurationError
from fedmeta.rl.environment import Layout

SHAPE = EpisodeShape(1, 3, 2)


def federation(name="nav2d", partition="family", seed=0, **parameters):
    return load_dataset(name, **parameters).federate(PARTITIONS.make(partition), seed)


def goals(source, count=200, seed=0):
    rng = np.random.default_rng(seed)
    layout = Layout.of(load_dataset("nav2d").environment)
    drawn = [source.sample(SHAPE, rng) for _ in range(count)]
    return np.stack([layout.unpack(one.support.x).physics[0].numpy() for one in drawn])


def test_a_client_is_a_neighbourhood_of_goals_and_all_together_fill_the_square():
    found = federation(spread=0.2)
    for client in range(3):
        own = goals(found.source(client))
        assert (np.ptp(own, axis=0) <= 0.2 + 1e-6).all() and (np.abs(own) <= 0.5).all()
    rng = np.random.default_rng(0)
    data = load_dataset("nav2d")
    places = np.stack([data.family(rng).physics(rng) for _ in range(3000)])
    counts, _, _ = np.histogram2d(*places.T, bins=4, range=[[-0.5, 0.5]] * 2)
    assert counts.sum() == 3000 and np.abs(counts / 3000 - 1 / 16).max() < 0.015


def test_families_of_test_clients_do_not_depend_on_the_seed_and_those_of_training_clients_do():
    one, two = federation(seed=1), federation(seed=2)
    test = [client.id for client in one.clients if client.role == "test"]
    assert np.array_equal(goals(one.source(test[0])), goals(two.source(test[0])))
    assert not np.array_equal(goals(one.source(0)), goals(two.source(0)))
    assert not np.array_equal(goals(one.source(test[0])), goals(one.source(test[1])))
    pooled = next(client.id for client in one.clients if client.role == "pooled")
    assert (np.ptp(goals(one.source(pooled)), axis=0) > 0.5).all()


def test_an_episode_is_one_task_whose_rollouts_have_draws_of_their_own():
    for name in ("nav2d", "cartpole"):
        data = load_dataset(name)
        episode = federation(name).source(0).sample(SHAPE, np.random.default_rng(0))
        row = Layout.of(data.environment).unpack(torch.cat([episode.support.x, episode.query.x]))
        assert (row.physics == row.physics[0]).all() and not row.shift.any()
        assert len({tuple(draw.flatten().tolist()) for draw in row.draws}) == 5
        assert episode.support.y.tolist() == [1, 1, 1] and episode.query.y.tolist() == [1, 1]
        assert torch.equal(Layout.of(data.environment).pack(row)[:3], episode.support.x)


def test_masses_are_within_their_range_and_differ_between_clients():
    found = federation("cartpole", range=2.0, jitter=1.05)
    layout = Layout.of(load_dataset("cartpole").environment)
    rng = np.random.default_rng(0)
    factors = np.stack(
        [
            [layout.unpack(found.source(client).sample(SHAPE, rng).query.x).physics[0].numpy() for _ in range(20)]
            for client in range(6)
        ]
    ) / np.array([1.0, 0.1, 0.5])
    assert factors.min() >= 1 / 2.1 - 1e-6 and factors.max() <= 2.1 + 1e-6
    assert (factors.max(axis=1) / factors.min(axis=1) <= 1.05**2 + 1e-6).all() and factors.mean(axis=1).std(
        axis=0
    ).min() > 0


def test_partitions_that_divide_examples_are_refused_and_so_are_families_of_examples():
    with pytest.raises(ConfigurationError, match=r"partition\.name to family"):
        federation(partition="dirichlet")
    with pytest.raises(ConfigurationError, match="draw tasks"):
        PARTITIONS.make("family").shares(None, np.random.default_rng(0))
    assert sum(client.role == "train" for client in federation(partition="centralised").clients) == 1
    assert np.ptp(goals(federation(partition="iid").source(0)), axis=0).min() > 0.9
