"""Krum and Multi-Krum (Blanchard et al., NeurIPS 2017, section 4)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fedmeta.parameters import parameter
from strategies.aggregation import Aggregate, Requires, RoundContext, Rule, selection
from strategies.rows import Rows, lowest

Variant = Literal["blanchard", "byzfl"]


def krum_scores(squared: Tensor, neighbours: int) -> Tensor:
    """`[n]` sums of the squared distances from each row to its nearest `neighbours` others, of `[n, n]`."""
    others = squared.clone().fill_diagonal_(torch.inf)
    return others.sort(dim=1).values[:, :neighbours].sum(dim=1)


@dataclass(frozen=True)
class MultiKrum(Rule):
    """The mean of the m updates with the lowest Krum scores.

    score_i = sum over the n - f - 2 nearest j != i of ||u_i - u_j||^2; ties go to the lowest index.

    >>> MultiKrum(f=1)(torch.tensor([[0.0], [1.0], [2.0], [3.0], [9.0]])).vector
    tensor([1.5000])
    """

    name: ClassVar[str] = "multi_krum"
    requires: ClassVar[Requires] = Requires(rows="n > 2 f + 2 (variant byzfl: n > 2 f)")

    f: int = parameter(doc="assumed number of malicious clients", ge=0)
    m: int | None = parameter(None, doc="updates that are averaged; none: n - f", ge=1)
    variant: Variant = parameter("blanchard", doc="n - f - 2 nearest others, or ByzFL's n - f - 1")

    def least_rows(self) -> int:
        """n > 2 f + 2 (Blanchard), or n > 2 f (ByzFL), and no less than m."""
        return max(_least(self.f, self.variant), self.m or 1)

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The mean of the selected; all others are flagged."""
        scores = krum_scores(rows.squared_distances, _neighbours(rows.n, self.f, self.variant))
        count = rows.n - self.f if self.m is None else self.m
        return selection(rows, lowest(scores, count), scores)


@dataclass(frozen=True)
class Krum(Rule):
    """The one update with the lowest Krum score (see `MultiKrum`); the rest are not accused.

    >>> Krum(f=1)(torch.tensor([[0.0], [0.1], [0.2], [0.1], [9.0]])).vector
    tensor([0.1000])
    """

    name: ClassVar[str] = "krum"
    requires: ClassVar[Requires] = Requires(rows="n > 2 f + 2 (variant byzfl: n > 2 f)")

    f: int = parameter(doc="assumed number of malicious clients", ge=0)
    variant: Variant = parameter("blanchard", doc="n - f - 2 nearest others, or ByzFL's n - f - 1")

    def least_rows(self) -> int:
        """n > 2 f + 2 (Blanchard), or n > 2 f (ByzFL)."""
        return _least(self.f, self.variant)

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The selected row, as it is, and the scores."""
        scores = krum_scores(rows.squared_distances, _neighbours(rows.n, self.f, self.variant))
        weights = lowest(scores, 1).to(torch.float64)
        return Aggregate(rows.weighted_sum(weights), weights, scores)


def _least(f: int, variant: Variant) -> int:
    return 2 * f + (3 if variant == "blanchard" else 1)


def _neighbours(n: int, f: int, variant: Variant) -> int:
    return n - f - (2 if variant == "blanchard" else 1)
