"""Bulyan over Krum (El Mhamdi et al., ICML 2018, algorithm 2)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedmeta.parameters import parameter
from strategies.aggregation import Aggregate, Requires, RoundContext, Rule
from strategies.aggregators.krum import krum_scores
from strategies.order import Array, by_sorted_columns, midpoint
from strategies.rows import Rows


@dataclass(frozen=True)
class Bulyan(Rule):
    """Select n - 2 f updates by Krum, one after the other; then average the n - 4 f values nearest to the median.

    Krum is asked anew among the updates that are left, of which k give k - f - 2 neighbours, but at least one. With one
    neighbour (f < 3, towards the end) two rows that are nearest to each other tie, so the lowest index decides. Values
    that are equally near go by the lower one.

    >>> Bulyan(f=1)(torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [99.0]])).vector
    tensor([2.])
    """

    name: ClassVar[str] = "bulyan"
    requires: ClassVar[Requires] = Requires(rows="n >= 4 f + 3")

    f: int = parameter(doc="assumed number of malicious clients", ge=0)

    def least_rows(self) -> int:
        """n >= 4 f + 3."""
        return 4 * self.f + 3

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """Values near the median; the 2 f updates that were never selected are flagged. Scores are Krum's."""
        if self.f == 0:
            weights = torch.full((rows.n,), 1 / rows.n, dtype=torch.float64)
            return Aggregate(rows.weighted_sum(weights), weights, flagged=torch.zeros(rows.n, dtype=torch.bool))
        chosen = self._select(rows.squared_distances)
        count = rows.n - 4 * self.f
        vector = by_sorted_columns(rows.matrix[chosen], lambda ordered: mean_around_median(ordered, count))
        scores = krum_scores(rows.squared_distances, rows.n - self.f - 2)
        return Aggregate(vector, scores=scores, flagged=~chosen)

    def _select(self, squared: Tensor) -> Tensor:
        left = list(range(len(squared)))
        chosen = torch.zeros(len(squared), dtype=torch.bool)
        for _ in range(len(squared) - 2 * self.f):
            neighbours = max(1, len(left) - self.f - 2)
            best = left[int(krum_scores(squared[left][:, left], neighbours).argmin())]
            chosen[best] = True
            left.remove(best)
        return chosen


def mean_around_median(ordered: Array, count: int) -> Array:
    """The mean of the `count` values nearest to the median of sorted values `[c, n]`: they stand side by side."""
    middle = midpoint(ordered)
    starts = range(ordered.shape[1] - count + 1)
    reach = np.stack([np.maximum(middle - ordered[:, k], ordered[:, k + count - 1] - middle) for k in starts])
    best = reach.argmin(axis=0)
    found = np.empty(len(ordered))
    for k in starts:
        here = best == k
        found[here] = ordered[here, k : k + count].mean(axis=1, dtype=np.float64)
    return found
