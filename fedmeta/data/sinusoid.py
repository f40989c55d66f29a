"""MAML's regression tasks (Finn et al. 2017, section 5.1): sine waves of random amplitude and phase."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedmeta.data import PARTITIONS
from fedmeta.data.base import ClientInfo, EpisodeShape, TaskSource
from fedmeta.errors import ConfigurationError
from fedmeta.parameters import parameter
from fedmeta.tasks import TASKS, Batch, Episode, Task


@dataclass(frozen=True)
class Sinusoid:
    """y = A sin(x - phase), A uniform in [amplitude_low, amplitude_high], phase in [0, pi], x in [-5, 5]."""

    amplitude_low: float = parameter(0.1, ge=0, doc="smallest amplitude")
    amplitude_high: float = parameter(5.0, gt=0, doc="largest amplitude")

    def __post_init__(self) -> None:
        if self.amplitude_low > self.amplitude_high:
            raise ConfigurationError(
                f"data.amplitude_low = {self.amplitude_low} is above data.amplitude_high = {self.amplitude_high}"
            )

    @property
    def task(self) -> Task:
        """Regression."""
        return TASKS["regression"]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One number."""
        return (1,)

    @property
    def classes(self) -> int:
        """None: 0."""
        return 0

    def load(self) -> "Sinusoid":
        """Nothing to load."""
        return self

    def federate(self, partition: object, seed: int) -> "SinusoidFederation":
        """Clients that each draw tasks from the whole distribution.

        Raises:
            ConfigurationError: a partition other than `iid` or `centralised`: sine waves have no classes or writers.
        """
        from fedmeta.data.partitions import IID, Centralised, Dirichlet

        if isinstance(partition, Centralised):
            train = 1
        elif isinstance(partition, IID) and not isinstance(partition, Dirichlet):
            train = partition.clients
        else:
            raise ConfigurationError(
                f"data 'sinusoid' has no classes for partition '{PARTITIONS.name_of(partition)}': set "
                "partition.name to iid"
            )
        roles = (
            ["train"] * train + ["validation"] * (partition.validation_clients or 0) + ["test"] * partition.test_clients
        )
        roles += ["pooled"] if partition.pooled else []
        clients = tuple(ClientInfo(i, f"waves {i}", role) for i, role in enumerate(roles))  # type: ignore[arg-type]
        return SinusoidFederation(self, clients)


@dataclass(frozen=True)
class SinusoidFederation:
    """Clients that share one distribution of tasks."""

    dataset: Sinusoid
    clients: Sequence[ClientInfo]

    def source(self, client: int) -> TaskSource:
        """The tasks of any client: they differ by the generator that draws them."""
        return _Waves(self.dataset)


@dataclass(frozen=True)
class _Waves:
    dataset: Sinusoid

    def sample(self, shape: EpisodeShape, rng: np.random.Generator) -> Episode:
        """One wave: x and y float32 `[n, 1]`."""
        amplitude = rng.uniform(self.dataset.amplitude_low, self.dataset.amplitude_high)
        phase = rng.uniform(0, math.pi)
        x = rng.uniform(-5, 5, size=(shape.shots + shape.queries, 1))
        inputs = torch.from_numpy(x.astype(np.float32))
        targets = torch.from_numpy((amplitude * np.sin(x - phase)).astype(np.float32))
        k = shape.shots
        return Episode(
            Batch(inputs[:k], targets[:k]), Batch(inputs[k:], targets[k:]), torch.zeros(0, dtype=torch.int64)
        )
