"""The coordinate-wise trimmed mean (Yin et al., ICML 2018, definition 2)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from fedmeta.parameters import parameter
from strategies.aggregation import Aggregate, Requires, RoundContext, Rule
from strategies.order import Array, by_sorted_columns
from strategies.rows import Rows


@dataclass(frozen=True)
class TrimmedMean(Rule):
    """The mean of every coordinate without its f lowest and f highest values.

    >>> TrimmedMean(f=1)(torch.tensor([[0.0], [1.0], [3.0], [1e9]])).vector
    tensor([2.])
    """

    name: ClassVar[str] = "trimmed_mean"
    requires: ClassVar[Requires] = Requires(rows="n > 2 f")

    f: int = parameter(doc="assumed number of malicious clients: so many values are dropped at each end", ge=0)

    def least_rows(self) -> int:
        """n > 2 f."""
        return 2 * self.f + 1

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The trimmed means; rows have no weights, but for f = 0, where it is the mean."""
        if self.f == 0:
            weights = torch.full((rows.n,), 1 / rows.n, dtype=torch.float64)
            return Aggregate(rows.weighted_sum(weights), weights)

        # A product with ones adds short rows several times faster than numpy's mean along the last axis.
        share = np.full(rows.n - 2 * self.f, 1 / (rows.n - 2 * self.f), dtype=rows.matrix.numpy().dtype)

        def middle(ordered: Array) -> Array:
            kept: Array = ordered[:, self.f : rows.n - self.f]
            return kept @ share

        return Aggregate(by_sorted_columns(rows.matrix, middle))
