"""The geometric median by smoothed Weiszfeld iterations (Pillutla et al., IEEE TSP 2022, algorithm 2: RFA)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.parameters import parameter
from strategies.aggregation import Aggregate, RoundContext, Rule
from strategies.distances import gram
from strategies.rows import Rows

FAR = 1e6
"""Rows whose squared distance is this many times the median one cost the others' products too many digits."""


@dataclass(frozen=True)
class GeometricMedian(Rule):
    """The point with the smallest sum of distances to the rows.

    z <- sum_i w_i u_i / sum_i w_i with w_i = 1 / max(nu, ||z - u_i||) until it rests, at first with row i's median
    distance to the others for ||z - u_i||: from the mean, attackers would choose how many iterations it takes. Since z
    stays a weighted mean of rows, the iterations need products G = UU' between rows only, around any origin:
    ||z - u_i||^2 = G_ii - 2 (Ga)_i + a'Ga for shares a. One more iteration costs n^2 operations, whatever D.

    >>> GeometricMedian()(torch.tensor([[0.0], [1.0], [2.0], [3.0], [1e6]])).vector.round(decimals=4)
    tensor([2.])
    """

    name: ClassVar[str] = "geometric_median"

    nu: float = parameter(1e-6, doc="distances below this count as this, which smooths the objective", gt=0)
    tol: float = parameter(1e-9, doc="stop when z moves by less than this share of its median distance to rows", ge=0)
    max_iterations: int = parameter(1000, doc="at most so many iterations", ge=1)

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The median, the rows' shares in it, and as scores their distances to it."""
        distances = rows.squared_distances.median(dim=1).values.sqrt()
        products = _products(rows, int(distances.argmin()))
        shares = self._shares(distances)
        iterations, moved = 0, torch.tensor(torch.inf)
        while iterations < self.max_iterations:
            distances = _distances(products, shares)
            new = self._shares(distances)
            # ||z' - z|| = ||sum_i (a'_i - a_i)(u_i - z)|| is at most this:
            moved = ((new - shares).abs() * distances).sum()
            shares, iterations = new, iterations + 1
            # Not the mean distance, which one far row could make as large as it likes.
            if moved <= self.tol * distances.median():
                break
        return Aggregate(
            rows.weighted_sum(shares),
            shares,
            scores=_distances(products, shares),
            diagnostics={"iterations": iterations, "last-move": float(moved)},
        )

    def _shares(self, distances: Tensor) -> Tensor:
        """`[n]` shares for rows at such distances."""
        inverse = 1 / distances.clamp_min(self.nu)
        return inverse / inverse.sum()


def _products(rows: Rows, centre: int) -> Tensor:
    """`[n, n]` dot products around a row, which is near most of the others."""
    squared = rows.squared_distances
    own = squared[centre]
    if own.max() <= FAR * own.median():
        return (own[:, None] + own[None, :] - squared) / 2
    return gram(rows.matrix, rows.matrix[centre])


def _distances(products: Tensor, shares: Tensor) -> Tensor:
    """`[n]` distances from the rows to their mean by `shares`."""
    pulled = products @ shares
    return (products.diagonal() - 2 * pulled + shares @ pulled).clamp_min(0.0).sqrt()
