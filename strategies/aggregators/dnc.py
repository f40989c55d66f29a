"""Divide and conquer (Shejwalkar & Houmansadr, NDSS 2021, algorithm 2)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.parameters import parameter
from strategies.aggregation import Aggregate, Requires, RoundContext, Rule, selection
from strategies.distances import gram
from strategies.rows import Rows, lowest


@dataclass(frozen=True)
class DnC(Rule):
    """Drop the rows that stand out along the main direction of the rows' spread, then average.

    In each iteration: draw coordinates, centre, take the first right singular vector v and the scores <u_i - mu, v>^2,
    and drop the floor(filter_ratio f) highest. Kept are rows that every iteration kept; if there are none, those that
    the last one kept. The scores need no singular vector: with the Gram matrix's first eigenpair they are lambda e_i^2.

    >>> DnC(f=1)(torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [90.0, 90.0]])).vector
    tensor([1., 1.])
    """

    name: ClassVar[str] = "dnc"
    requires: ClassVar[Requires] = Requires(rows="n > 2 f and n > filter_ratio f")

    f: int = parameter(doc="assumed number of malicious clients", ge=0)
    subsample: int = parameter(10_000, doc="coordinates drawn in each iteration", ge=1)
    iterations: int = parameter(1, doc="iterations whose verdicts are intersected", ge=1)
    filter_ratio: float = parameter(1.0, doc="rows dropped, as a multiple of f", gt=0)

    def least_rows(self) -> int:
        """n > 2 f, and at least one row is kept."""
        return max(2 * self.f, math.floor(self.filter_ratio * self.f)) + 1

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The mean of the kept rows; as scores the largest over the iterations."""
        dropped = math.floor(self.filter_ratio * self.f)
        draws = context.numpy_generator()
        kept, last = torch.ones(rows.n, dtype=torch.bool), torch.ones(rows.n, dtype=torch.bool)
        scores = torch.zeros(rows.n, dtype=torch.float64)
        for _ in range(self.iterations):
            matrix = rows.matrix
            if self.subsample < rows.size:
                matrix = matrix[:, torch.from_numpy(draws.choice(rows.size, self.subsample, replace=False))]
            found = spectral_scores(matrix)
            last = lowest(found, rows.n - dropped)
            kept, scores = kept & last, torch.maximum(scores, found)
        return selection(rows, kept if kept.any() else last, scores)


def spectral_scores(matrix: Tensor) -> Tensor:
    """`[n]` squared projections of the centred rows on their first singular vector; zeros where all rows are alike."""
    centred = gram(matrix, matrix.to(torch.float64).mean(dim=0))
    values, vectors = torch.linalg.eigh(centred)
    return values[-1].clamp_min(0.0) * vectors[:, -1].square()
