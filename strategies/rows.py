"""A round's update matrix with what is derived from it once: finite rows, norms, distances, mixtures of rows."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strategies.distances import column_chunks, gram, mixed_squared_distances, squared_distances

DERIVED_ROWS = 128
"""Up to so many rows the distances between mixtures come from those between rows (n^4 operations, whatever D)."""

NORM_COLUMNS = 2**14
"""Columns whose squares are added up in the matrix's own precision."""

SHORTENED = 1e-4
"""Of rows clipped to less of their length, distances from those before have lost four of sixteen digits."""

SHORT, LONG = 1e-12, 1e15
"""Norms whose squares float32 surely holds."""


@dataclass(frozen=True, eq=False)
class Mixing:
    """Rows made from rows: what a pre-aggregator does.

    Attributes:
        weights: `[m, n]`, new row = sum of weight times old row.
        speaker: `[n]`, the new row that stands for an old one, by which clients get its score.
    """

    weights: Tensor
    speaker: Tensor

    @property
    def keeps_clients(self) -> bool:
        """Whether every new row still stands for one client, the same as before."""
        return torch.equal(self.speaker, torch.arange(len(self.weights)))


class Rows:
    """An update matrix `[n, D]` on the CPU; norms and distances are computed when first asked for, in float64."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.n, self.size = matrix.shape

    @classmethod
    def of(cls, updates: Any) -> "Rows":
        """From a tensor or array; half precision becomes float32.

        Raises:
            ValueError: not two axes, or not floating-point numbers.
        """
        matrix = torch.from_numpy(np.ascontiguousarray(updates)) if isinstance(updates, np.ndarray) else updates
        if isinstance(matrix, Tensor) and matrix.dim() == 2 and matrix.shape[1] == 0:
            raise ValueError("updates have no columns: D must be at least 1")
        if not isinstance(matrix, Tensor) or matrix.dim() != 2 or not matrix.is_floating_point():
            described = f"{matrix.dtype} {tuple(matrix.shape)}" if isinstance(matrix, Tensor) else type(updates)
            raise ValueError(
                f"updates are a float matrix [n, D], one row a client, not {described}: pass a torch.tensor of floats"
            )
        matrix = matrix.detach().cpu()
        return cls(matrix if matrix.dtype in (torch.float32, torch.float64) else matrix.float())

    @cached_property
    def mean(self) -> Tensor:
        """`[D]`, not to be changed: also the cheapest way to see that all values are finite."""
        return (torch.ones(self.n, dtype=self.matrix.dtype) @ self.matrix).div_(self.n)

    @cached_property
    def finite(self) -> Tensor:
        """`[n]` bool: rows without NaN and infinite values."""
        finite = torch.ones(self.n, dtype=torch.bool)
        if "norms" in self.__dict__:
            suspects = torch.nonzero(~torch.isfinite(self.norms)).flatten().tolist()
        else:
            suspects = [] if torch.isfinite(self.mean.sum()) else list(range(self.n))
        for index in suspects:  # large finite values may overflow a sum, so each row is looked at
            finite[index] = bool(torch.isfinite(self.matrix[index]).all())
        return finite

    @cached_property
    def norms(self) -> Tensor:
        """`[n]` Euclidean norms: within a chunk of columns in the matrix's precision, over the chunks in float64."""
        squares = torch.zeros(self.n, dtype=torch.float64)
        for piece in self.matrix.split(NORM_COLUMNS, dim=1):
            squares += torch.linalg.vector_norm(piece, dim=1).to(torch.float64).square()
        norms = squares.sqrt()
        for index in torch.nonzero((norms < SHORT) | (norms > LONG) | norms.isnan()).flatten().tolist():
            norms[index] = self.matrix[index].to(torch.float64).norm()  # squares outside the range of float32
        return norms

    @cached_property
    def squared_distances(self) -> Tensor:
        """`[n, n]` squared Euclidean distances; see `strategies.distances`."""
        return squared_distances(self.matrix)

    @cached_property
    def cosines(self) -> Tensor:
        """`[n, n]` cosines between rows; a zero row is at right angles to all others and alike itself."""
        products = gram(self.matrix)
        return as_cosines(products, products.diagonal().sqrt())

    def cosines_to(self, vector: Tensor) -> Tensor:
        """`[n]` cosines to a vector `[D]`; 0 where either is zero."""
        products = torch.zeros(self.n, dtype=torch.float64)
        for columns in column_chunks(self.matrix):
            products += self.matrix[:, columns].to(torch.float64) @ vector[columns].to(torch.float64)
        scale = self.norms * vector.to(torch.float64).norm()
        return torch.where(scale > 0, products / scale.clamp_min(torch.finfo(torch.float64).tiny), 0.0).clamp(-1, 1)

    def distances_to(self, vector: Tensor) -> Tensor:
        """`[n]` Euclidean distances to a vector `[D]`."""
        total = torch.zeros(self.n, dtype=torch.float64)
        for columns in column_chunks(self.matrix):
            total += (self.matrix[:, columns].to(torch.float64) - vector[columns].to(torch.float64)).square().sum(dim=1)
        return total.sqrt()

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """sum_i w_i u_i, `[D]` in the matrix's precision, not to be changed; one row of weight 1 as it is."""
        chosen = torch.nonzero(weights).flatten()
        if len(chosen) == 1:
            return self.matrix[int(chosen)] * float(weights[int(chosen)])
        if (weights == weights[0]).all() and torch.isfinite(self.mean.sum()):
            factor = float(weights[0]) * self.n
            return self.mean if abs(factor - 1.0) < 1e-12 else self.mean * factor
        return weights.to(self.matrix.dtype) @ self.matrix

    def mixed(self, mixing: Mixing) -> "Rows":
        """The mixtures as rows; where distances are known already, theirs follow without another look at the matrix.

        Not those of rows clipped from far away, which would be differences of much larger numbers.
        """
        weights = mixing.weights.to(torch.float64)
        found = Rows(self._mix(weights))
        kept = "squared_distances" in self.__dict__ and bool(weights.sum(dim=1).min() > SHORTENED)
        if kept and self.n <= DERIVED_ROWS:
            found.__dict__["squared_distances"] = self._mixed_distances(weights)
        return found

    def _mix(self, weights: Tensor) -> Tensor:
        used = int(torch.count_nonzero(weights))
        lines = weights.to(self.matrix.dtype)
        # numpy asks the system for large pages, which makes a large new array several times cheaper than torch's.
        found = torch.from_numpy(np.empty((len(weights), self.size), dtype=self.matrix.numpy().dtype))
        if weights.shape == (self.n, self.n) and used == int(torch.count_nonzero(weights.diagonal())):
            return torch.mul(self.matrix, lines.diagonal()[:, None], out=found)
        if used > 2 * self.n:
            np.matmul(lines.numpy(), self.matrix.numpy(), out=found.numpy())  # quicker than torch's with few rows
            return found
        for row, line in zip(found, lines, strict=True):
            first, *others = torch.nonzero(line).flatten().tolist()
            torch.mul(self.matrix[first], line[first], out=row)
            for other in others:
                row.add_(self.matrix[other], alpha=float(line[other]))
        return found

    def _mixed_distances(self, weights: Tensor) -> Tensor:
        """With the origin as one more point, any weights sum to one."""
        squared = torch.zeros(self.n + 1, self.n + 1, dtype=torch.float64)
        squared[:-1, :-1] = self.squared_distances
        rest = 1.0 - weights.sum(dim=1, keepdim=True)
        rest[rest.abs() < 1e-12] = 0.0
        if rest.any():
            squared[:-1, -1] = squared[-1, :-1] = self.norms.square()
        return mixed_squared_distances(squared, torch.cat([weights, rest], dim=1))


def as_cosines(products: Tensor, norms: Tensor) -> Tensor:
    """`[n, n]` dot products to cosines; a zero vector is at right angles to all others and alike itself."""
    scale = norms[:, None] * norms[None, :]
    cosines = torch.where(scale > 0, products / scale.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    return cosines.clamp(-1.0, 1.0).fill_diagonal_(1.0)


def clip_factors(norms: Tensor, bound: float | Tensor) -> Tensor:
    """min(1, bound / norm) for each norm; 1 for a norm of zero."""
    tiny = torch.finfo(torch.float64).tiny
    return torch.clamp(torch.as_tensor(bound, dtype=torch.float64) / norms.clamp_min(tiny), max=1.0)


def median(values: Tensor) -> Tensor:
    """The median of `[n]` values, the midpoint of the two middle ones where n is even.

    >>> median(torch.tensor([1.0, 9.0, 2.0, 4.0]))
    tensor(3., dtype=torch.float64)
    """
    ordered = values.to(torch.float64).sort().values
    middle = (len(ordered) - 1) // 2
    return (ordered[middle] + ordered[len(ordered) // 2]) / 2


def lowest(scores: Tensor, count: int) -> Tensor:
    """`[n]` bool: the `count` lowest scores; of equal ones the lowest index first."""
    chosen = torch.zeros(len(scores), dtype=torch.bool)
    chosen[scores.sort(stable=True).indices[:count]] = True
    return chosen
