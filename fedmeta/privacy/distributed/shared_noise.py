"""Noise in shares: how much each client adds, so that the fewest honest survivors' shares make up the whole."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from fedmeta.errors import ConfigurationError
from fedmeta.privacy.distributed import discrete_gaussian, scale, skellam
from fedmeta.privacy.distributed.draws import Words
from fedmeta.privacy.distributed.hadamard import padded
from fedmeta.privacy.distributed.mechanisms import DiscreteGaussian, Skellam
from fedmeta.privacy.distributed.rounding import Integers

Kind = Literal["skellam", "discrete_gaussian"]


@dataclass(frozen=True)
class SharedNoise:
    """What clients of one group add, and how finely they cut. Public: every client and the server compute the same.

    A share has standard deviation z C / sqrt(survivors - colluders): who drops out adds nothing, and colluders know
    their own noise. Where more survive, more noise than accounted is in the sum.

    Attributes:
        kind: of the noise.
        noise_multiplier: z >= 0, of the noise that counts, over the clip norm C.
        clients: most that a group has, >= 1: the modulus holds their sum.
        survivors: fewest whose sum is released, colluders < survivors <= clients.
        colluders: of them, whose noise does not count, >= 0.
        size: coordinates of a contribution, >= 1.
        bits: b of the modulus 2^b.

    Raises:
        ConfigurationError: numbers out of bounds, or too few bits.
    """

    kind: Kind
    noise_multiplier: float
    clients: int
    survivors: int
    colluders: int
    size: int
    bits: int

    def __post_init__(self) -> None:
        if not 0 <= self.colluders < self.survivors <= self.clients:
            raise ConfigurationError(
                f"privacy.min_survivors = {self.survivors} must be > privacy.colluders = {self.colluders} >= 0, and <= "
                f"{self.clients}, the clients of a group: the noise of honest survivors is all that counts"
            )

    @property
    def honest(self) -> int:
        """The fewest shares of noise that are there and unknown to everybody."""
        return self.survivors - self.colluders

    @property
    def length(self) -> int:
        """Coordinates that are sent, d: padded to a power of two."""
        return padded(self.size)

    @property
    def share(self) -> float:
        """Standard deviation of one client's noise, in clip norms."""
        return self.noise_multiplier / math.sqrt(self.honest)

    @cached_property
    def granularity(self) -> float:
        """Integers to a clip norm, s C."""
        return scale.choose(self.bits, self.clients, self.length, self.share, self.kind == "skellam")

    @cached_property
    def wrap_bound(self) -> float:
        """At most the probability that a round's sum wraps anywhere."""
        arguments = self.bits, self.clients, self.length, self.share, self.granularity
        return scale.wrap_bound(*arguments, self.kind == "skellam")

    @cached_property
    def mechanism(self) -> Skellam | DiscreteGaussian:
        """What is accounted for one release."""
        z, granularity, length = self.noise_multiplier, self.granularity, self.length
        if self.kind == "skellam":
            return Skellam(z, granularity, length)
        return DiscreteGaussian(z, granularity, length, self.honest)

    def draw(self, words: Words) -> Integers:
        """One client's share `[length]`, in integers."""
        sample = skellam.sample if self.kind == "skellam" else discrete_gaussian.sample
        return sample(self.length, self.share * self.granularity, words)
