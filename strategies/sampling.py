"""Client sampling: which clients train in a round, drawn from the run's seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmeta.errors import ConfigurationError
from fedmeta.parameters import parameter
from fedmeta.privacy import schemes
from fedmeta.privacy.schemes import NoAmplification, Scheme, WithoutReplacement


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

    def scheme(self, population: int) -> Scheme:
        """What the accountant is told."""
        return NoAmplification() if self.clients == population else WithoutReplacement(population, self.clients)

    def marginal(self, population: int) -> float:
        """Probability that a client takes part."""
        return self.clients / population

    def expected(self, population: int) -> float:
        """The cohort of every round."""
        return float(self.clients)

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

    def scheme(self, population: int) -> Scheme:
        """What the accountant is told."""
        return schemes.Poisson(self.rate)

    def marginal(self, population: int) -> float:
        """Probability that a client takes part."""
        return self.rate

    def expected(self, population: int) -> float:
        """The mean cohort."""
        return self.rate * population

    def draw(self, population: Sequence[int], rng: np.random.Generator) -> list[int]:
        """Client ids in ascending order; perhaps none."""
        coins = rng.random(len(population)) < self.rate
        return sorted(int(client) for client, chosen in zip(population, coins, strict=True) if chosen)


@dataclass(frozen=True)
class CappedPoisson:
    """As Poisson, and where more than `cap` clients come, a uniformly random `cap` of them: bounded traffic."""

    rate: float = parameter(0.1, gt=0, le=1, doc="probability that a client comes")
    cap: int = parameter(16, ge=1, doc="most clients a round", unit="clients")

    def check(self, available: int) -> None:
        """Refuse an empty population.

        Raises:
            ConfigurationError: no training clients at all.
        """
        Poisson(rate=self.rate).check(available)

    def scheme(self, population: int) -> Scheme:
        """What the accountant is told: never plain Poisson, which the cap makes it not."""
        return schemes.TruncatedPoisson(population, self.rate, self.cap)

    def marginal(self, population: int) -> float:
        """An upper bound of the probability that a client takes part."""
        return self.rate

    def expected(self, population: int) -> float:
        """The mean cohort without the cap, or the cap where that is less."""
        return min(self.rate * population, float(self.cap))

    def draw(self, population: Sequence[int], rng: np.random.Generator) -> list[int]:
        """Client ids in ascending order, at most `cap`; perhaps none."""
        came = Poisson(rate=self.rate).draw(population, rng)
        if len(came) <= self.cap:
            return came
        return sorted(int(client) for client in rng.choice(np.asarray(came), size=self.cap, replace=False))
