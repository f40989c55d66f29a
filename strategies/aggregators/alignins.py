"""AlignIns (Xu et al., CVPR 2025, algorithm 1)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedmeta.parameters import parameter
from strategies.aggregation import Aggregate, Requires, RoundContext, Rule, selection
from strategies.distances import column_chunks
from strategies.rows import Rows, clip_factors, median


@dataclass(frozen=True)
class AlignIns(Rule):
    """Keep updates whose direction and whose principal signs are as aligned as those of the many.

    TDA_i = cos(u_i, theta). MPSA_i: of the sparsity D coordinates where |u_ij| is largest, the share whose sign is that
    of the round's majority. Kept where |x_i - median| / std is below lambda_s for TDA and below lambda_c for MPSA (0
    where the standard deviation is 0; ddof = 0); then clipped to the median norm of the kept, and averaged.
    """

    name: ClassVar[str] = "alignins"
    requires: ClassVar[Requires] = Requires(context=("model",), signs=True)

    lambda_s: float = parameter(1.0, doc="bound on the deviation of TDA, in standard deviations", gt=0)
    lambda_c: float = parameter(1.0, doc="bound on the deviation of MPSA, in standard deviations", gt=0)
    sparsity: float = parameter(0.3, doc="share of the coordinates that count as principal", gt=0, le=1)

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The mean of the kept, clipped rows. Scores: the larger of the two deviations over their bounds."""
        assert context.model is not None
        direction = deviations(rows.cosines_to(context.model)) / self.lambda_s
        signs = deviations(principal_agreement(rows.matrix, self.sparsity)) / self.lambda_c
        scores = torch.maximum(direction, signs)
        kept = scores < 1.0
        bound = median(rows.norms[kept]) if kept.any() else torch.tensor(0.0)
        return selection(
            rows,
            kept,
            scores,
            factors=clip_factors(rows.norms, bound),
            diagnostics={"clip-norm": float(bound)},
            reason="AlignIns found every update unlike the others",
        )


def deviations(values: Tensor) -> Tensor:
    """|x - median| / std of `[n]` values; zeros where the standard deviation is (to rounding) zero."""
    std = values.std(correction=0)
    if not std > 1e-12 * values.abs().max():
        return torch.zeros_like(values)
    return (values - median(values)).abs() / std


def principal_agreement(matrix: Tensor, sparsity: float) -> Tensor:
    """`[n]` shares of each row's largest coordinates whose sign is the majority's; of equal ones the lowest index."""
    size = matrix.shape[1]
    count = max(1, int(sparsity * size))
    majority = torch.empty(size, dtype=matrix.dtype)
    for columns in column_chunks(matrix):
        majority[columns] = matrix[:, columns].sign().sum(dim=0).sign()
    shares = []
    for row in matrix:
        chosen = _largest(row.abs(), count)
        shares.append((row[chosen].sign() == majority[chosen]).to(torch.float64).mean())
    return torch.stack(shares)


def _largest(values: Tensor, count: int) -> Tensor:
    """`[D]` bool: the `count` largest values."""
    threshold = float(np.partition(values.numpy(), len(values) - count)[len(values) - count])
    chosen = values > threshold
    ties = torch.nonzero(values == threshold).flatten()[: count - int(chosen.sum())]
    chosen[ties] = True
    return chosen
