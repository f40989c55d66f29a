"""Swapping one unit moves what is released by at most the bound that is accounted: every learner, every unit."""

from dataclasses import replace

import pytest
import torch
from flwr.app import Context, RecordDict

from clients.privacy import Protection
from clients.request import Request
from fedmeta.privacy.clipping import clipped_sum
from fedmeta.tasks import Batch
from fedmeta.training import train_cohort
from fedmeta.workload import Workload
from server.configuration import load

CLIP = 0.05
LEARNERS = ["maml", "fomaml", "anil", "metasgd", "reptile", "protonet", "fedavg"]
LEARNERS += ["boil", "imaml", "perfedavg", "matchingnet", "lstm_meta", "abml"]
CLIENT_ONLY = ["pfedme", "ditto"]


def workload(learner, **privacy):
    return Workload(
        load(
            {
                "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
                "task": {"ways": 3, "shots": 1, "queries": 2},
                "model": {"name": "mlp", "hidden": [12], "normalisation": "none"},
                "learner": {"name": learner},
                "client": {"steps": 1, "tasks_per_step": 3, "optimiser": {"name": "sgd", "lr": 1.0}},
                "privacy": {"clip_norm": CLIP, "noise_multiplier": 0.0, **privacy},
            }
        )
    )


def request(work, client=0, round=1):
    return Request(client, work, work.initial_vector(), round, {})


def context():
    return Context(1, 1, {"partition-id": 0, "simulated": True}, RecordDict(), {})


def tasks_of(work, seed, count=3):
    import numpy as np

    rng = np.random.default_rng(seed)
    return [work.source(0).sample(work.training_shape, rng) for _ in range(count)]


def wild(episode):
    """The same episode with other contents: loud pictures, and labels moved round."""
    generator = torch.Generator().manual_seed(9)
    noise = [40 * torch.randn(part.x.shape, generator=generator) for part in (episode.support, episode.query)]
    return replace_episode(episode, noise)


def replace_episode(episode, xs):
    return episode._replace(support=Batch(xs[0], episode.support.y), query=Batch(xs[1], episode.query.y.roll(1)))


def train(work, episodes):
    protection = Protection([request(work)], [context()])
    plan = replace(protection.plan(work.local_plan(1)), execution="loop")
    own = work.first_personal(work.initial_vector())[None]
    start = work.initial_vector()
    result = train_cohort(work.learner, work.spec, start, 1, lambda client, step, count: episodes, plan, personal=own)
    assert not result.failures, result.failures
    return protection.update(result.updates[0], 0).double()


@pytest.mark.filterwarnings("ignore:privacy.noise_multiplier = 0")
@pytest.mark.parametrize("placement", ["central", "local"])
@pytest.mark.parametrize("learner", LEARNERS)
def test_one_task(learner, placement):
    """The update is the sum of clipped task gradients over 3 tasks, step size 1: a task moves it by at most 2 C / 3."""
    work = workload(learner, unit="task", placement=placement)
    episodes = tasks_of(work, 0)
    base = train(work, episodes)
    assert base.norm() > 0
    for other in (wild(episodes[1]), tasks_of(work, 1)[0]):
        moved = train(work, [episodes[0], other, episodes[2]]) - base
        assert 0 < moved.norm() <= 2 * CLIP / 3 * (1 + 1e-4)


@pytest.mark.filterwarnings("ignore:privacy.noise_multiplier = 0")
@pytest.mark.parametrize("placement", ["central", "local"])
@pytest.mark.parametrize("drawn", [0, 1, 3, 5])
def test_a_step_is_divided_by_the_tasks_expected_of_a_pool_whoever_were_drawn(placement, drawn):
    """By their number, one task more would shrink the part of all others, and by more than C / 3 in all."""
    work = workload("fedavg", unit="task", placement=placement, task_pool=8)
    plan = Protection([request(work)], [context()]).plan(work.local_plan(1))
    rows = torch.randn(drawn, work.spec.size(), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(plan.reduce(rows, 0, 0).double(), clipped_sum(rows, CLIP) / 3)


@pytest.mark.filterwarnings("ignore:privacy.noise_multiplier = 0")
@pytest.mark.parametrize("learner", LEARNERS + CLIENT_ONLY)
def test_one_client(learner):
    """All data of a client exchanged: its update stays within C, and so moves by at most 2 C."""
    work = workload(learner, unit="client", placement="local")
    updates = [train(work, tasks) for tasks in (tasks_of(work, 0), [wild(task) for task in tasks_of(work, 1)])]
    assert all(0 < update.norm() <= CLIP * (1 + 1e-6) for update in updates)
    rest = torch.randn(4, updates[0].numel())
    sums = [clipped_sum(torch.cat([rest, update[None]]), CLIP) for update in updates]
    assert (sums[0] - sums[1]).norm() <= 2 * CLIP * (1 + 1e-6)


@pytest.mark.filterwarnings("ignore:privacy.noise_multiplier = 0")
@pytest.mark.parametrize("learner", ["fedavg"])
def test_one_example(learner):
    """One gradient over 9 examples a task, 3 tasks: an example that is in one task moves the update by 2 C / 9 / 3."""
    work = workload(learner, unit="example", placement="local")
    episodes = tasks_of(work, 0)
    base = train(work, episodes)
    changed = episodes[0].support.x.clone()
    changed[0] = 30 * torch.randn_like(changed[0])
    other = episodes[0]._replace(support=Batch(changed, episodes[0].support.y))
    moved = train(work, [other, *episodes[1:]]) - base
    assert 0 < moved.norm() <= 2 * CLIP / 9 / 3 * (1 + 1e-4)


def noise_of(work, client, round, purpose="release", episodes=None):
    """What is added to an update of which nothing but noise remains visible: the clip norm is tiny beside it."""
    protection = Protection([request(work, client, round)], [context()])
    plan = replace(protection.plan(work.local_plan(round)), execution="loop")
    result = train_cohort(
        work.learner, work.spec, work.initial_vector(), 1, lambda c, s, n: episodes or tasks_of(work, 0), plan
    )
    return protection.update(result.updates[0], 0).double()


@pytest.mark.parametrize(
    ("unit", "deviation"),
    [("client", 1000 * CLIP), ("task", 1000 * CLIP / 3), ("example", 1000 * CLIP / 9 / 3 * 3**0.5)],
)
def test_noise_has_the_accounted_variance_and_is_fresh_for_every_client_and_round(unit, deviation):
    work = workload("fedavg", unit=unit, placement="local", noise_multiplier=1000.0)
    draws = torch.stack([noise_of(work, client, round) for client, round in [(0, 1), (1, 1), (0, 2)]])
    size = draws.shape[1]
    for row in draws:
        assert row.std().item() == pytest.approx(deviation, rel=5 / (2 * size) ** 0.5)
    correlation = torch.corrcoef(draws) - torch.eye(3)
    assert correlation.abs().max() < 5.5 / size**0.5
    assert torch.equal(noise_of(work, 0, 1), draws[0]), "a simulation repeats"


def test_a_deployed_client_draws_noise_that_the_seed_does_not_tell():
    work = workload("fedavg", unit="client", placement="local", noise_multiplier=1.0)
    deployed = Context(1, 1, {"partition-id": 0}, RecordDict(), {})
    one, two = (Protection([request(work)], [deployed]).update(torch.zeros(work.spec.size()), 0) for _ in range(2))
    assert not torch.equal(one, two)
