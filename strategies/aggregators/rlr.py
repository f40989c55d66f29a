"""Robust learning rate (Ozdayi et al., AAAI 2021, equation 2)."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fedmeta.parameters import parameter
from strategies.aggregation import Aggregate, Requires, RoundContext, Rule
from strategies.distances import column_chunks
from strategies.rows import Rows


@dataclass(frozen=True)
class RLR(Rule):
    """The mean, reversed in every coordinate whose signs agree too little: |sum_i sign u_ij| < threshold.

    A zero votes 0. With m attackers the threshold must lie in m < threshold <= n - 2 m: alone they must not reach it,
    and the honest, unanimous, must in spite of them.

    >>> RLR(threshold=2)(torch.tensor([[1.0, 1.0], [2.0, -1.0], [3.0, 3.0]])).vector
    tensor([ 2., -1.])
    """

    name: ClassVar[str] = "rlr"
    requires: ClassVar[Requires] = Requires(rows="n >= threshold (fewer votes than it reverse every step)", signs=True)

    threshold: int = parameter(doc="votes that a coordinate needs to be followed", ge=1, unit="clients")
    server_lr: float = parameter(1.0, doc="factor of the result", ge=0)

    def least_rows(self) -> int:
        """n >= threshold."""
        return self.threshold

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The mean with signs; the share of reversed coordinates is a diagnostic."""
        vector = rows.weighted_sum(torch.full((rows.n,), self.server_lr / rows.n, dtype=torch.float64)).clone()
        reversed_ = 0
        for columns in column_chunks(rows.matrix):
            against = rows.matrix[:, columns].sign().sum(dim=0).abs() < self.threshold
            vector[columns] = torch.where(against, -vector[columns], vector[columns])
            reversed_ += int(against.sum())
        return Aggregate(vector, diagnostics={"reversed-share": reversed_ / max(rows.size, 1)})
