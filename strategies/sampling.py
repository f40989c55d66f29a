"""Client sampling: which clients train in a round, drawn from the run's seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmeta.errors import ConfigurationError
from fedmeta.parameters import parameter


@dataclass(frozen=True)
class FixedSize:
    """A fixed number of clients, uniformly without replacement."""

    clients: int = parameter(8, ge=1, doc="clients a round", unit="clients")

    def check(self, available: int) -> None:
        """Refuse a population that is too small.

        Raises:
            ConfigurationError: fewer clients than a round takes.
        """
        if available < self.clients:
            raise ConfigurationError(
                f"server.sampling.clients = {self.clients} but there are {available} training clients: "
                f"set it to at most {available}, or add clients"
            )

    def draw(self, population: Sequence[int], rng: np.random.Generator) -> list[int]:
        """Client ids in ascending order, `clients` of them."""
        self.check(len(population))
        return sorted(int(client) for client in rng.choice(np.asarray(population), size=self.clients, replace=False))


@dataclass(frozen=True)
class Poisson:
    """Each client takes part by an independent coin, so the number varies and may be zero."""

    rate: float = parameter(0.1, gt=0, le=1, doc="probability that a client takes part in a round")

    def check(self, available: int) -> None:
        """Refuse an empty population.

        Raises:
            ConfigurationError: no training clients at all.
        """
        if available < 1:
            raise ConfigurationError("there are no training clients to sample from: check the partition")

    def draw(self, population: Sequence[int], rng: np.random.Generator) -> list[int]:
        """Client ids in ascending order; perhaps none."""
        coins = rng.random(len(population)) < self.rate
        return sorted(int(client) for client, chosen in zip(population, coins, strict=True) if chosen)
