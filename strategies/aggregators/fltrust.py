"""FLTrust (Cao et al., NDSS 2021, algorithm 2)."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from strategies.aggregation import Aggregate, Requires, RoundContext, Rule, nothing
from strategies.rows import Rows


@dataclass(frozen=True)
class FLTrust(Rule):
    """Weigh updates by how far they point along the server's own update on data it trusts.

    TS_i = max(0, cos(u_i, g)); sum_i TS_i (||g|| / ||u_i||) u_i / sum_i TS_i. A row too short to be lengthened to ||g||
    in its own precision has no trust. For a meta-learner g is an update on *root tasks*, whose classes are neither
    training nor test classes.

    >>> root = RoundContext(root_update=torch.tensor([2.0, 0.0]))
    >>> FLTrust()(torch.tensor([[1.0, 0.0], [-9.0, 0.0], [0.0, 5.0]]), root).vector
    tensor([2., 0.])
    """

    name: ClassVar[str] = "fltrust"
    requires: ClassVar[Requires] = Requires(context=("root_update",))

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The trusted mean; rows of trust 0 are flagged, and scores are 1 - cos."""
        assert context.root_update is not None
        root = context.root_update.to(torch.float64)
        cosines = rows.cosines_to(root)
        most = torch.finfo(rows.matrix.dtype).max
        scale = (root.norm() / rows.norms).clamp(max=most)
        trust = torch.where(scale < most, cosines.clamp_min(0.0), 0.0)
        scores = 1.0 - cosines
        if not trust.sum() > 0:
            return nothing(rows, "no update points along the root update", scores)
        weights = trust * scale / trust.sum()
        return Aggregate(rows.weighted_sum(weights), weights, scores, trust == 0)
