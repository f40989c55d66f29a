"""Centred clipping (Karimireddy et al., ICML 2021, equation 6)."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fedmeta.parameters import parameter
from strategies.aggregation import Aggregate, RoundContext, Rule
from strategies.rows import Rows, clip_factors, median


@dataclass(frozen=True)
class CenteredClipping(Rule):
    """From a centre v, repeat v <- v + mean_i (u_i - v) min(1, tau / ||u_i - v||).

    v starts at `RoundContext.momentum`, else at this rule's own last result (the paper's choice), else at zero. How far
    it can be moved by f malicious rows is bounded by f tau / n a step, whatever they send.

    >>> CenteredClipping(clip_norm=1.0, iterations=1)(torch.tensor([[1.0], [3.0], [-0.5], [1e9]])).vector
    tensor([0.6250])
    """

    name: ClassVar[str] = "centered_clipping"

    clip_norm: float | None = parameter(None, doc="tau; none: the median of the distances to v at each step", gt=0)
    iterations: int = parameter(3, doc="steps", ge=1)

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The centre, which is also the state `momentum`; as scores the distances to the centre of the last step."""
        start = context.state.get("momentum") if context.momentum is None else context.momentum
        centre = torch.zeros(rows.size, dtype=rows.matrix.dtype) if start is None else start.to(rows.matrix.dtype)
        for _ in range(self.iterations):
            distances = rows.norms if not centre.any() else rows.distances_to(centre)
            bound = median(distances) if self.clip_norm is None else self.clip_norm
            shares = clip_factors(distances, bound) / rows.n
            centre = rows.weighted_sum(shares) + centre * (1.0 - float(shares.sum()))
        return Aggregate(
            centre,
            scores=distances,
            diagnostics={"clipped": int((distances > bound).sum())},
            state={"momentum": centre},
        )
