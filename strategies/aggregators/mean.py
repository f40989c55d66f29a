"""The weighted mean of updates (McMahan et al., AISTATS 2017, algorithm 1)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from strategies.aggregation import Aggregate, RoundContext


@dataclass(frozen=True)
class Mean:
    """Average the rows by their weights: sum_i w_i u_i / sum_i w_i.

    Raises:
        ValueError: when called with no rows, or with weights that sum to zero.

    >>> Mean()(torch.tensor([[0.0, 2.0], [4.0, 2.0]])).vector
    tensor([2., 2.])
    >>> Mean()(torch.tensor([[0.0], [1.0], [5.0]]), RoundContext(weights=torch.tensor([0.0, 0.0, 4.0]))).vector
    tensor([5.])
    """

    def __call__(self, updates: Tensor, context: RoundContext = RoundContext()) -> Aggregate:
        """updates: `[n, D]` deltas. The sum is taken in float64, in the order of the rows."""
        if updates.shape[0] == 0:
            raise ValueError("no updates to average")
        weights = torch.ones(updates.shape[0]) if context.weights is None else context.weights
        shares = weights.to(torch.float64)
        if not shares.sum() > 0:
            raise ValueError("the weights sum to zero: there is no mean")
        shares = shares / shares.sum()
        # Row by row: a fixed order of additions, and no float64 copy of the whole matrix.
        total = torch.zeros(updates.shape[1], dtype=torch.float64)
        for share, row in zip(shares.tolist(), updates, strict=True):
            total.add_(row.to(torch.float64), alpha=share)
        return Aggregate(vector=total.to(updates.dtype), weights=shares)
