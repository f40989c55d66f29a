"""Nearest-neighbour mixing (Allouah et al., AISTATS 2023, algorithm 2)."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fedmeta.parameters import parameter
from strategies.aggregation import Requires, RoundContext
from strategies.preaggregation import PreAggregator
from strategies.rows import Mixing, Rows, lowest


@dataclass(frozen=True)
class NNM(PreAggregator):
    """Replace every row by the mean of the n - f rows nearest to it, itself among them; ties go to the lowest index.

    >>> NNM(f=1)(torch.tensor([[1.0], [4.0], [8.0]]))
    tensor([[2.5000],
            [2.5000],
            [6.0000]])
    """

    name: ClassVar[str] = "nnm"
    requires: ClassVar[Requires] = Requires(rows="n > 2 f")

    f: int = parameter(doc="assumed number of malicious clients", ge=0)

    def least_rows(self) -> int:
        """n > 2 f."""
        return 2 * self.f + 1

    def mixing(self, rows: Rows, context: RoundContext) -> Mixing:
        """Equal weights of the nearest; every row still stands for its client."""
        count = rows.n - self.f
        if self.f == 0:
            nearest = torch.ones(rows.n, rows.n, dtype=torch.float64)
        else:
            to_itself_first = rows.squared_distances.clone().fill_diagonal_(-1.0)
            nearest = torch.stack([lowest(line, count) for line in to_itself_first]).to(torch.float64)
        return Mixing(nearest / count, torch.arange(rows.n))
