"""Canary clients: made-up contributions of the largest allowed norm, of which the auditor knows which took part."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError
from fedmeta.privacy.central import CentralGaussian, Release

LEAST = 20
"""The fewest canaries of an audit: were all of twenty guessed right, the one-run bound would be 1.3."""


def check_sides(included: Tensor) -> None:
    """Refuse coins `[m]`, bool, that put fewer than two canaries in, or out.

    Raises:
        ConfigurationError: says how many.
    """
    count = int(included.sum())
    if min(count, len(included) - count) < 2:
        raise ConfigurationError(
            f"of {len(included)} canaries the coins put {count} in: an audit needs two in and two out, to see how each "
            "side spreads. Give more by --canaries, or another seed"
        )


@dataclass
class Canaries:
    """Canaries of one run, and what an observer of all its releases knows of each.

    A canary is a direction; one that takes part adds C times it to a round's contributions before the mechanism under
    test sees them. A fair coin says which do at all, so that one run gives as many trials as there are canaries.

    Attributes:
        directions: `[m, D]`, unit rows.
        included: `[m]`, bool.
        rate: probability that an included canary takes part in a round, as for any client.
        coins: of the rounds.
        scores: `[m]`, sums over the releases so far of their inner products with the directions.
        total: `[D]`, the sum of the releases.
    """

    directions: Tensor
    included: Tensor
    rate: float
    coins: np.random.Generator
    scores: Tensor = field(init=False)
    total: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.scores = torch.zeros(len(self.directions), dtype=torch.float64)
        self.total = torch.zeros(self.directions.shape[1], dtype=torch.float64)

    @classmethod
    def random(cls, count: int, dimension: int, rate: float, seed: int) -> "Canaries":
        """Random orthonormal directions, each in or out by a fair coin.

        Raises:
            ConfigurationError: fewer canaries than `LEAST`, or more than dimensions: they could not be orthogonal; or
                coins that left fewer than two on one side, whose spread no one could tell.
        """
        if not LEAST <= count <= dimension:
            raise ConfigurationError(
                f"canaries = {count} must be >= {LEAST}, <= {dimension}, the parameters of the model: fewer tell "
                "nothing, more would hide one another. Give --canaries"
            )
        rng = np.random.default_rng(seed)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        # Orthonormal, so that canaries do not hide one another; each alone is a uniformly random direction.
        directions, _ = torch.linalg.qr(torch.randn(dimension, count, generator=generator))
        included = torch.from_numpy(rng.random(count) < 0.5)
        check_sides(included)
        return cls(directions.T.contiguous(), included, rate, rng)

    @property
    def cosines(self) -> Tensor:
        """`[m]`, of each direction with the sum of the releases."""
        return self.directions.double() @ self.total / self.total.norm().clamp_min(torch.finfo(torch.float64).tiny)

    def taking_part(self, norm: float) -> Tensor:
        """The contributions `[k, D]` of those that take part in a round."""
        coins = torch.from_numpy(self.coins.random(len(self.directions)) < self.rate)
        return norm * self.directions[self.included & coins]

    def observe(self, release: Tensor) -> None:
        """Note what a round released."""
        self.scores += self.directions.double() @ release
        self.total += release


class AuditedGaussian(CentralGaussian):
    """The server's mechanism with canaries among the contributions; all else is the code that is under test."""

    canaries: Canaries

    @classmethod
    def around(cls, mechanism: CentralGaussian, canaries: Canaries) -> "AuditedGaussian":
        """The same mechanism, canaries added to whatever it is given."""
        audited = cls(**vars(mechanism))
        audited.canaries = canaries
        return audited

    def release(self, rows: Tensor, round: int) -> Release:
        """Release the sum of rows and canaries, and let the canaries see it."""
        found = super().release(torch.cat([rows, self.canaries.taking_part(self.clip_norm).to(rows.dtype)]), round)
        self.canaries.observe(found.vector)
        return found
