"""Small models that really learnt: ProtoNets and a MAML on glyphs, and unseen episodes to attack."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fedmeta.data import PARTITIONS, load_dataset
from fedmeta.data.base import EpisodeShape
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


def train(name: str, seed: int, steps: int, ways: int | None, **settings) -> Trained:
    """A few hundred meta-steps of Adam on one episode each: seconds."""
    model = make_model("conv4", filters=16, ways=ways, normalisation="group", groups=4)
    learner = make_learner(name, model, **settings)
    params = learner.init(torch.Generator().manual_seed(seed))
    leaves = [value.requires_grad_() for value in params.values()]
    optimiser = torch.optim.Adam(leaves, lr=3e-3)
    for episode in draw_episodes("train", steps, 3, seed):
        grads, _ = learner.meta_gradient(params, episode)
        for leaf, key in zip(leaves, params, strict=True):
            leaf.grad = grads[key]
        optimiser.step()
    own = {key: value.detach() for key, value in params.items()}
    return Trained(learner, own, draw_episodes("test", 12, 5, 1))


@pytest.fixture(scope="session")
def protonet() -> Trained:
    """A ProtoNet that gets most of its unseen episodes right."""
    return train("protonet", 0, 150, None)


@pytest.fixture(scope="session")
def twin() -> Trained:
    """The same from another seed: other initialisation, other tasks."""
    return train("protonet", 1, 150, None)


@pytest.fixture(scope="session")
def maml() -> Trained:
    """A MAML of two inner steps."""
    return train("maml", 0, 60, 5, inner_lr=0.3, inner_steps=2)
