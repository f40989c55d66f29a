"""Episodes and learners small enough to be worked through by hand."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fedmeta.attacks.local import Scene
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.tasks import Batch, Episode
from server.configuration import load

SIZE = 12
"""Of the flat vector in `scene`."""


def _scene(**changes) -> Scene:
    """What client 3 knows, which attacks with client 7, in round 2 of a run of ten clients a round."""
    experiment = load({"attack": {"method": {"name": "badnets"}}, "server": {"optimiser": {"name": "sgd", "lr": 0.5}}})
    honest = torch.zeros(3, SIZE)
    honest[0, :2], honest[1, :2], honest[2, -1] = torch.tensor([3.0, 4.0]), torch.tensor([6.0, 8.0]), 1.0
    base = Scene(
        experiment=experiment,
        learner=SimpleNamespace(),
        spec=SimpleNamespace(size=lambda role="shared": SIZE),
        input_shape=(1, 16, 16),
        round=2,
        client=3,
        malicious=(1, 3, 7),
        attackers=(3, 7),
        participants=10,
        params={},
        last_update=None,
        honest=lambda: honest,
        clean_episodes=lambda count: [],
    )
    return replace(base, **changes)


@pytest.fixture
def scene() -> Callable[..., Scene]:
    """What a malicious client knows, with changes; honest updates are of lengths 5, 10 and 1."""
    return _scene


@pytest.fixture
def make_episode() -> Callable[..., Episode]:
    """Random images; slot k stands for class 10 + k."""

    def make(ways: int = 5, shots: int = 2, queries: int = 3, size: int = 16, seed: int = 0) -> Episode:
        g = torch.Generator().manual_seed(seed)
        slots = torch.arange(ways)
        support = Batch(torch.rand(ways * shots, 1, size, size, generator=g), slots.repeat(shots))
        query = Batch(torch.rand(ways * queries, 1, size, size, generator=g), slots.repeat(queries))
        return Episode(support, query, slots + 10)

    return make


@pytest.fixture
def learner_of() -> Callable[..., object]:
    """A learner around a small fully connected network for `make_episode`'s images."""

    def make(name: str, ways: int = 5, size: int = 16, **parameters):
        outputs = None if name == "protonet" else ways
        model = make_model("mlp", input_shape=(1, size, size), ways=outputs, hidden=(12,), normalisation="none")
        return make_learner(name, model.double(), **parameters)

    return make
