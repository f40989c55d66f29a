"""The contract of a pre-aggregator: it makes rows of rows, before an aggregator sees them."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from strategies.aggregation import Bounded, Matrix, RoundContext
from strategies.rows import Mixing, Rows


class PreAggregator(Bounded, ABC):
    """A pre-aggregation rule: a frozen dataclass of parameters with one method, `mixing`.

    Attributes:
        keeps_clients: whether row i of what it leaves stands for client i, whatever its parameters and n. Where it does
            not, a rule that follows clients over the rounds is refused behind it.
    """

    keeps_clients: ClassVar[bool] = True

    def rows_after(self, n: int) -> int:
        """How many rows it leaves of n."""
        return n

    @abstractmethod
    def mixing(self, rows: Rows, context: RoundContext) -> Mixing:
        """The weights by which new rows are made of finite rows, at least `least_rows()` of them."""

    def __call__(self, updates: Matrix, context: RoundContext = RoundContext()) -> Tensor:
        """The new rows `[m, D]` of `[n, D]` updates, which are never modified; rows that are not finite are left out.

        Raises:
            NotEnoughUpdates: fewer finite rows than the rule's bound.
        """
        rows = Rows.of(updates)
        if rows.n == 0:
            raise ValueError("no updates to aggregate")
        _ = rows.norms  # one look at the matrix, which also tells which rows are finite
        kept = rows if rows.finite.all() else Rows(rows.matrix[rows.finite])
        self.check_rows(kept.n)
        return kept.mixed(self.mixing(kept, context.take(rows.finite))).matrix
