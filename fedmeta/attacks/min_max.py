"""Min-Max (Shejwalkar & Houmansadr, NDSS 2021, equation 8), in closed form."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.attacks.base import AttackContext, UpdateAttack
from fedmeta.attacks.direction import Direction, perturbation, squared_distances, warn_of_no_room
from fedmeta.parameters import parameter


@dataclass(frozen=True)
class MinMax(UpdateAttack):
    """Send mu + gamma p with the largest gamma whose distance to any benign row is at most that of two benign rows.

    With a = ||p||^2, b_i = <mu - u_i, p> and D^2 = max_ij ||u_i - u_j||^2, row i allows
    gamma_i = (-b_i + sqrt(b_i^2 - a (||mu - u_i||^2 - D^2))) / a, and gamma is their minimum: max_i ||u - u_i|| = D.
    The paper's algorithm bisects for the same number. Rows that are all alike leave no room: gamma = 0, with a warning.

    >>> MinMax(direction="unit")(torch.tensor([[1.0], [3.0]]), n_malicious=1)
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
            offsets = mean - rows
            b, squares = offsets @ p, (offsets * offsets).sum(dim=1)
            room = (squared_distances(rows).max() - squares).clamp(min=0)
            gamma = ((-b + (b * b + a * room).sqrt()) / a).min().clamp(min=0)
        warn_of_no_room("Min-Max", gamma, a)
        return mean + gamma * p
