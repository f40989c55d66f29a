"""Small models that really learnt: two ProtoNets and a MAML on glyphs, and unseen episodes to attack."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fedmeta.adversarial import make_objective
from fedmeta.adversarial.base import Attack
from fedmeta.data import PARTITIONS, load_dataset
from fedmeta.data.base import EpisodeShape
from fedmeta.evasion.ball import Ball
from fedmeta.learners import make_learner
from fedmeta.learners.base import MetaLearner
from fedmeta.models import make_model
from fedmeta.params import Params
from fedmeta.tasks import Episode


@dataclass(frozen=True)
class Trained:
    """A learner, its trained parameters, and episodes of alphabets that it never saw."""

    learner: MetaLearner
    params: Params
    episodes: list[Episode]


def draw_episodes(split: str, count: int, queries: int, seed: int) -> list[Episode]:
    data = load_dataset("hershey", writers=2, examples_per_writer=4)
    role = "train" if split == "train" else "pooled"
    federation = data.federate(PARTITIONS.make("alphabet"), 0)
    sources = [federation.source(info.id) for info in federation.clients if info.role == role]
    shape, rng = EpisodeShape(5, 1, queries), np.random.default_rng(seed)
    return [sources[i % len(sources)].sample(shape, rng) for i in range(count)]


def train(name: str, seed: int, steps: int, ways: int | None, attack: Attack | None = None, **settings) -> Trained:
    """A few hundred meta-steps of Adam on one episode each, for a net so narrow that this takes a second.

    Queries are attacked where an attack is given.
    """
    model = make_model("mlp", input_shape=(1, 28, 28), hidden=(64, 64), ways=ways, normalisation="none")
    learner = make_learner(name, model, **settings)
    params = learner.init(torch.Generator().manual_seed(seed))
    optimiser = torch.optim.Adam(list(params.values()), lr=1e-3)
    for episode in draw_episodes("train", steps, 3, seed):
        if attack is None:
            grads, _ = learner.meta_gradient(params, episode)
        else:
            grads, _ = make_objective("aq").meta_gradient(learner, params, episode, attack)
        for key, value in params.items():
            value.grad = grads[key]
        optimiser.step()
    return Trained(learner, {key: value.detach() for key, value in params.items()}, draw_episodes("test", 16, 5, 1))


@pytest.fixture(scope="session")
def protonet() -> Trained:
    """A ProtoNet that gets most queries of unseen alphabets right."""
    return train("protonet", 0, 150, None)


@pytest.fixture(scope="session")
def hardened() -> Trained:
    """A ProtoNet trained on attacked queries: whose gradients a defence would mask."""
    return train("protonet", 0, 400, None, Attack(Ball("linf", 0.05), steps=2, step=0.75, salt=1))


@pytest.fixture(scope="session")
def twin() -> Trained:
    """The same from another seed: other initialisation, other tasks."""
    return train("protonet", 1, 150, None)


@pytest.fixture(scope="session")
def maml() -> Trained:
    """A MAML of two inner steps."""
    return train("maml", 0, 100, 5, inner_lr=0.1, inner_steps=2)
