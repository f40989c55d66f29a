"""The geometric median by smoothed Weiszfeld iterations (Pillutla et al., IEEE TSP 2022, algorithm 2: RFA)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.parameters import parameter
from strategies.aggregation import Aggregate, RoundContext, Rule
from strategies.rows import Rows


@dataclass(frozen=True)
class GeometricMedian(Rule):
    """The point with the smallest sum of distances to the rows.

    z <- sum_i w_i u_i / sum_i w_i with w_i = 1 / max(nu, ||z - u_i||), from the mean until it rests. Since z stays a
    weighted mean of rows, the iterations need the distances between rows only: ||z - u_i||^2 = (d^2 a)_i - a'd^2 a / 2
    for shares a. One more iteration costs n^2 operations, whatever D.

    >>> GeometricMedian()(torch.tensor([[0.0], [1.0], [2.0], [3.0], [1e6]])).vector.round(decimals=4)
    tensor([2.])
    """

    name: ClassVar[str] = "geometric_median"

    nu: float = parameter(1e-6, doc="distances below this count as this, which smooths the objective", gt=0)
    tol: float = parameter(1e-9, doc="stop when z moves by less than this share of its mean distance to rows", ge=0)
    max_iterations: int = parameter(1000, doc="at most so many iterations", ge=1)

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The median, the rows' shares in it, and as scores their distances to it."""
        shares = torch.full((rows.n,), 1 / rows.n, dtype=torch.float64)
        iterations, moved = 0, torch.tensor(torch.inf)
        while iterations < self.max_iterations:
            distances = _distances(rows.squared_distances, shares)
            inverse = 1 / distances.clamp_min(self.nu)
            new = inverse / inverse.sum()
            # ||z' - z|| = ||sum_i (a'_i - a_i)(u_i - z)|| is at most this:
            moved = ((new - shares).abs() * distances).sum()
            shares, iterations = new, iterations + 1
            if moved <= self.tol * distances.mean():
                break
        return Aggregate(
            rows.weighted_sum(shares),
            shares,
            scores=_distances(rows.squared_distances, shares),
            diagnostics={"iterations": iterations, "last-move": float(moved)},
        )


def _distances(squared: Tensor, shares: Tensor) -> Tensor:
    """`[n]` distances from the rows to their mean by `shares`."""
    pulled = squared @ shares
    return (pulled - shares @ pulled / 2).clamp_min(0.0).sqrt()
