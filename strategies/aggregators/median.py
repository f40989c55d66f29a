"""The coordinate-wise median (Yin et al., ICML 2018, definition 1)."""

from dataclasses import dataclass
from typing import ClassVar

from strategies.aggregation import Aggregate, RoundContext, Rule
from strategies.order import by_sorted_columns, midpoint
from strategies.rows import Rows


@dataclass(frozen=True)
class Median(Rule):
    """The median of every coordinate, the midpoint of the two middle values where n is even.

    It holds while less than half of the rows are malicious; rows are not accused.

    >>> import torch
    >>> Median()(torch.tensor([[0.0, 5.0], [1.0, 7.0], [2.0, 6.0], [1e9, -1e9]])).vector
    tensor([1.5000, 5.5000])
    """

    name: ClassVar[str] = "median"

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The medians; rows have no weights."""
        return Aggregate(by_sorted_columns(rows.matrix, midpoint))
