"""SignGuard (Xu et al., ICDCS 2022, algorithm 2)."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fedmeta.parameters import parameter
from strategies.aggregation import Aggregate, Requires, RoundContext, Rule, selection
from strategies.clustering import largest_cluster, mean_shift, need_sklearn
from strategies.rows import Rows, clip_factors, median


@dataclass(frozen=True)
class SignGuard(Rule):
    """Keep updates of ordinary length whose shares of positive, zero and negative signs are those of the many.

    Kept are rows with lower <= ||u_i|| / median <= upper that are also in the largest MeanShift cluster of the shares
    of signs, taken on a random part of the coordinates; then clip to the median norm, and average. The norm filter sees
    the rows as they came, before clipping. With `similarity = "cosine"` there is one more feature: the cosine to this
    rule's last result, in the first round the median cosine to the other rows.
    """

    name: ClassVar[str] = "signguard"
    requires: ClassVar[Requires] = Requires(signs=True)

    lower: float = parameter(0.1, doc="shortest kept norm, as a multiple of the median", ge=0)
    upper: float = parameter(3.0, doc="longest kept norm, as a multiple of the median", gt=0)
    fraction: float = parameter(0.1, doc="share of the coordinates whose signs are counted", gt=0, le=1)
    similarity: Literal["cosine"] | None = parameter(None, doc="one more feature: the direction")

    @staticmethod
    def check_together(values: Mapping[str, Any], where: str) -> None:
        """Refuse it where there is nothing to cluster with."""
        need_sklearn(where)

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The mean of the kept, clipped rows. Scores: distance from the median of the features."""
        middle = median(rows.norms)
        ordinary = (rows.norms >= self.lower * middle) & (rows.norms <= self.upper * middle)
        features = self._features(rows, context)
        centre = torch.stack([median(column) for column in features.T])
        found = selection(
            rows,
            ordinary & largest_cluster(mean_shift(features)),
            (features - centre).norm(dim=1),
            factors=clip_factors(rows.norms, middle),
            diagnostics={"norm-outliers": int((~ordinary).sum())},
            reason="SignGuard's two filters kept no update",
        )
        if self.similarity is None:
            return found
        return dataclasses.replace(found, state={"previous": found.vector} if found.event is None else context.state)

    def _features(self, rows: Rows, context: RoundContext) -> Tensor:
        count = max(1, math.ceil(self.fraction * rows.size))
        matrix = rows.matrix
        if count < rows.size:
            drawn = context.numpy_generator().choice(rows.size, count, replace=False)
            matrix = matrix[:, torch.from_numpy(drawn)]
        shares = [(matrix > 0), (matrix == 0), (matrix < 0)]
        columns = [share.to(torch.float64).mean(dim=1) for share in shares]
        if self.similarity == "cosine":
            previous = context.state.get("previous")
            if previous is not None:
                columns.append(rows.cosines_to(previous))
            else:
                columns.append(torch.stack([median(line) for line in rows.cosines]))
        return torch.stack(columns, dim=1)
