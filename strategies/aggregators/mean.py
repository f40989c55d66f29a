"""The weighted mean of updates (McMahan et al., AISTATS 2017, algorithm 1)."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from strategies.aggregation import Aggregate, Requires, RoundContext, Rule
from strategies.rows import Rows


@dataclass(frozen=True)
class Mean(Rule):
    """Average the rows by their weights: sum_i w_i u_i / sum_i w_i. One malicious row moves it anywhere.

    Raises:
        ValueError: when called with weights that sum to zero.

    >>> Mean()(torch.tensor([[0.0, 2.0], [4.0, 2.0]])).vector
    tensor([2., 2.])
    >>> Mean()(torch.tensor([[0.0], [1.0], [5.0]]), RoundContext(weights=torch.tensor([0.0, 0.0, 4.0]))).vector
    tensor([5.])
    """

    name: ClassVar[str] = "mean"
    requires: ClassVar[Requires] = Requires(weights=True)

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The mean and each row's share in it."""
        weights = torch.ones(rows.n) if context.weights is None else context.weights
        shares = weights.to(torch.float64)
        if not shares.sum() > 0:
            raise ValueError("the weights sum to zero: there is no mean")
        shares = shares / shares.sum()
        return Aggregate(rows.weighted_sum(shares), shares)
