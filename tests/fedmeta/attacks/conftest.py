"""Episodes and learners small enough to be worked through by hand."""

from collections.abc import Callable

import pytest
import torch

from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.tasks import Batch, Episode


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
