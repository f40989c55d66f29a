"""Every key of an experiment with values that fit badly: an experiment or a clear error, and in a run the same."""

import logging
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from fedmeta.component import Component
from fedmeta.errors import FedmetaError
from fedmeta.experiment import Experiment
from server.configuration import load
from simulations import simulate

VALUES: tuple[Any, ...] = (
    *(0, -1, 1, 1.5, math.nan, math.inf, -math.inf, 1e308, 10**20, 10**400, True),
    *("", "nonsense", "é", None, [], {}, [0], {"name": "nonsense"}),
)

RAW: dict[str, Any] = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 3, "validation_clients": 1, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "fomaml", "inner_lr": 0.01},
    "client": {"steps": 1, "tasks_per_step": 1, "execution": "loop"},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 2}},
    "evaluation": {"every": 1, "episodes": 1, "validation_episodes": 1, "pooled_episodes": 2},
}
PARAMETERS = (
    *("learner.name", "learner.inner_lr", "learner.inner_steps", "learner.test_steps", "data.name", "data.path"),
    *("partition.name", "partition.clients", "partition.validation_clients", "partition.test_clients", "model.name"),
    *("server.sampling.name", "server.sampling.clients", "server.aggregator.name", "server.aggregator.f"),
    *("client.optimiser.name", "client.optimiser.lr", "client.optimiser.momentum", "attack.method.name"),
    *("server.optimiser.name", "server.optimiser.lr", "server.optimiser.momentum"),
)
"""Keys of components, which the schema leaves to them."""


def keys(model: type[BaseModel] = Experiment, prefix: str = "") -> Iterator[str]:
    """Every key of the schema."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and not issubclass(kind, Component):
            yield from keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


KEYS = (*keys(), *PARAMETERS)


def words_of_refusal(attempt: Callable[[], object]) -> str:
    """What a user is told; `taken` where it works. Any other exception is a fault of ours."""
    try:
        attempt()
    except FedmetaError as error:
        return str(error).strip()
    return "taken"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("key", KEYS)
def test_a_value_is_taken_or_refused_in_words(key: str) -> None:
    told = [words_of_refusal(partial(load, RAW, {key: value})) for value in VALUES]
    assert all(told)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("key", KEYS)
def test_a_run_with_it_ends_or_is_refused_in_words(key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Numbers that a user may ask for and that take hours are left out."""
    caplog.set_level(logging.CRITICAL)
    for number, value in enumerate(VALUES):
        long = isinstance(value, int | float) and 1000 < value < math.inf
        if long and not key.endswith(("lr", "noise_multiplier")):
            continue
        attempt = partial(simulate, RAW, engine="inline", overrides={key: value}, out=tmp_path / str(number))
        assert words_of_refusal(attempt)
