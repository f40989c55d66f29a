"""Adaptive robust clipping (Allouah et al., ICML 2025, algorithm 2)."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fedmeta.parameters import parameter
from strategies.aggregation import Requires, RoundContext
from strategies.preaggregation import PreAggregator
from strategies.rows import Mixing, Rows, clip_factors


@dataclass(frozen=True)
class ARC(PreAggregator):
    """Clip the floor(2 (f / n) (n - f)) longest rows to the longest norm of the others.

    >>> ARC(f=1)(torch.tensor([[1.0], [-2.0], [3.0], [90.0]])).flatten().round(decimals=4)
    tensor([ 1., -2.,  3.,  3.])
    """

    name: ClassVar[str] = "arc"
    requires: ClassVar[Requires] = Requires(rows="n > 2 f")

    f: int = parameter(doc="assumed number of malicious clients", ge=0)

    def least_rows(self) -> int:
        """n > 2 f."""
        return 2 * self.f + 1

    def mixing(self, rows: Rows, context: RoundContext) -> Mixing:
        """A factor for each row."""
        clipped = 2 * self.f * (rows.n - self.f) // rows.n
        bound = rows.norms.sort().values[rows.n - clipped - 1]
        return Mixing(torch.diag(clip_factors(rows.norms, bound)), torch.arange(rows.n))
