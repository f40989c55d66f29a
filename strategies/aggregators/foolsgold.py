"""FoolsGold (Fung et al., RAID 2020, algorithm 1)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.parameters import parameter
from strategies.aggregation import Aggregate, Requires, RoundContext, Rule, nothing
from strategies.distances import gram
from strategies.rows import Rows, as_cosines


@dataclass(frozen=True)
class FoolsGold(Rule):
    """Weigh down clients whose histories point the same way: sybils share a goal, honest clients differ.

    H_i is the sum of client i's updates so far. v_i = max(0, max_j cos(H_i, H_j)); cosines are pardoned by v_i / v_j
    where v_j > v_i; w_i = 1 - max_j of them, divided by the largest, then kappa (ln(w / (1 - w)) + 0.5) within [0, 1].
    The result is sum w_i u_i / sum w_i. All parameters count, since an embedding has no head. One attacker alone is not
    found; honest clients with alike data are lost.

    >>> rule = FoolsGold()
    >>> rule(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])).weights
    tensor([0.5000, 0.5000, 0.0000, 0.0000], dtype=torch.float64)
    """

    name: ClassVar[str] = "foolsgold"
    requires: ClassVar[Requires] = Requires(history=True)

    kappa: float = parameter(1.0, doc="steepness of the logit", gt=0)

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The weighted mean; rows of weight 0 are flagged. State: `history/<client>`, `[D]` each."""
        names = [f"history/{client}" for client in context.clients]
        history = rows.matrix.clone()
        for row, name in zip(history, names, strict=True):
            if name in context.state:
                # Two updates near the end of float32 would make the history, and every later round of it, infinite.
                row.add_(context.state[name]).nan_to_num_()
        state = {**context.state, **{name: row.clone() for name, row in zip(names, history, strict=True)}}
        trust = self.trust(history)
        scores = 1.0 - trust
        if not trust.sum() > 0:
            return nothing(rows, "FoolsGold took all clients for sybils", scores, state)
        weights = trust / trust.sum()
        return Aggregate(rows.weighted_sum(weights), weights, scores, trust == 0, state=state)

    def trust(self, history: Tensor) -> Tensor:
        """`[n]` weights within [0, 1] of clients with histories `[n, D]`."""
        if len(history) == 1:
            return torch.ones(1, dtype=torch.float64)
        products = gram(history)
        cosines = as_cosines(products, products.diagonal().sqrt()).fill_diagonal_(0.0)
        most = cosines.max(dim=1).values.clamp_min(0.0)
        pardon = torch.where(most[None, :] > most[:, None], most[:, None] / most[None, :].clamp_min(1e-300), 1.0)
        alike = (cosines * pardon).fill_diagonal_(0.0).max(dim=1).values
        # Rounding leaves a sybil at 1e-16, which the division by the largest would blow up where all are sybils.
        trust = torch.where(alike < 1.0 - 1e-9, (1.0 - alike).clamp(0.0, 1.0), 0.0)
        if not trust.max() > 0:
            return trust
        trust = trust / trust.max()
        return (self.kappa * (torch.log(trust / (1.0 - trust)) + 0.5)).clamp(0.0, 1.0)
