"""Static clipping of every row to one norm."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fedmeta.parameters import parameter
from strategies.aggregation import RoundContext
from strategies.preaggregation import PreAggregator
from strategies.rows import Mixing, Rows, clip_factors


@dataclass(frozen=True)
class Clipping(PreAggregator):
    """u_i min(1, M / ||u_i||).

    >>> Clipping(clip_norm=1.0)(torch.tensor([[0.5, 0.0], [0.0, 8.0]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 1.0000]])
    """

    name: ClassVar[str] = "clipping"

    clip_norm: float = parameter(doc="M, the longest norm that passes", gt=0)

    def mixing(self, rows: Rows, context: RoundContext) -> Mixing:
        """A factor for each row."""
        return Mixing(torch.diag(clip_factors(rows.norms, self.clip_norm)), torch.arange(rows.n))
