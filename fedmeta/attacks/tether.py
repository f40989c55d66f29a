"""An optimiser that keeps a client near the global model: pulled towards it, or projected into a ball around it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedmeta.optimisers import Optimiser, OptimiserState

DISPLACEMENT = "tether/displacement"


@dataclass(frozen=True)
class Tethered:
    """Descend alpha * loss + (1 - alpha) * ||x||^2, x = phi - theta, and project x into a ball.

    Attributes:
        base: the optimiser that takes the steps.
        size: D; entries after the first D of a row (personal ones) are free.
        alpha: weight of the loss; 1 for no pull (constrain-and-scale, Bagdasaryan et al. 2020, section 4.3).
        radius: of the ball, ||x|| <= radius; None for none (Wang et al. 2020, section 3).
        every: steps between projections.
    """

    base: Optimiser
    size: int
    alpha: float = 1.0
    radius: float | None = None
    every: int = 1

    def init(self, vector: Tensor) -> OptimiserState:
        """The base's state, and the displacement, zero at first."""
        return {**self.base.init(vector), DISPLACEMENT: torch.zeros_like(vector)}

    def step(self, state: OptimiserState, gradient: Tensor, scale: float = 1.0) -> tuple[OptimiserState, Tensor]:
        """See `Optimiser.step`."""
        moved = state[DISPLACEMENT]
        inner = {key: value for key, value in state.items() if key != DISPLACEMENT}
        if self.alpha != 1:
            pull = 2 * (1 - self.alpha) * moved
            pull[..., self.size :] = 0
            gradient = self.alpha * gradient + pull
        inner, change = self.base.step(inner, gradient, scale)
        after = moved + change
        if self.radius is not None and int(inner["step"]) % self.every == 0:
            after = projected(after, self.radius, self.size)
        return {**inner, DISPLACEMENT: after}, after - moved


def projected(rows: Tensor, radius: float, size: int | None = None) -> Tensor:
    """Rows `[..., D]` shortened to a norm of at most `radius`, taken over the first `size` entries; others stay.

    >>> projected(torch.tensor([3.0, 4.0]), 1.0)
    tensor([0.6000, 0.8000])
    """
    end = rows.shape[-1] if size is None else size
    norm = rows[..., :end].to(torch.float64).norm(dim=-1, keepdim=True)
    factor = (radius / norm.clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=1.0).to(rows.dtype)
    return torch.cat([rows[..., :end] * factor, rows[..., end:]], dim=-1)
