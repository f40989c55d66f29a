"""Min-Sum (Shejwalkar & Houmansadr, NDSS 2021, equation 9), in closed form."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.attacks.base import AttackContext, UpdateAttack
from fedmeta.attacks.direction import Direction, perturbation, squared_distances, warn_of_no_room
from fedmeta.parameters import parameter


@dataclass(frozen=True)
class MinSum(UpdateAttack):
    """Send mu + gamma p whose squared distances to the k benign rows sum to at most those of any benign row.

    gamma = sqrt((max_i sum_j ||u_i - u_j||^2 - sum_i ||u_i - mu||^2) / (k a)), a = ||p||^2: the bound is met with
    equality. Rows that are all alike leave no room: gamma = 0, with a warning.

    >>> MinSum(direction="unit")(torch.tensor([[1.0], [3.0]]), n_malicious=1)
    tensor([[1.]])
    """

    known_rows: ClassVar[int] = 2

    direction: Direction = parameter("std", doc="away from the mean along -mu, -sign(mu) or minus the deviation")

    def craft(
        self, rows: Tensor, n_malicious: int, generator: torch.Generator | None, context: AttackContext
    ) -> Tensor:
        """The same row `[D]` for all attackers."""
        mean, p = rows.mean(dim=0), perturbation(rows, self.direction)
        a, gamma = p @ p, torch.zeros((), dtype=rows.dtype)
        if a > 0:
            room = squared_distances(rows).sum(dim=1).max() - (rows - mean).square().sum()
            gamma = (room.clamp(min=0) / (rows.shape[0] * a)).sqrt()
        warn_of_no_room("Min-Sum", gamma, a)
        return mean + gamma * p
