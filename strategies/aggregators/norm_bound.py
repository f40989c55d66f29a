"""Norm bounding with weak noise (Sun et al. 2019, section 5)."""

from dataclasses import dataclass
from typing import ClassVar

from fedmeta.parameters import parameter
from strategies.aggregation import Aggregate, RoundContext, Rule
from strategies.rows import Rows, clip_factors, median


@dataclass(frozen=True)
class NormBound(Rule):
    """mean_i u_i min(1, M / ||u_i||), and noise N(0, std^2) on every coordinate (0.025 in the paper).

    The noise is a defence against backdoors, not a privacy mechanism: it is drawn from the round's seeded generator.

    >>> import torch
    >>> NormBound(clip_norm=1.0)(torch.tensor([[0.5, 0.0], [0.0, 8.0]])).vector
    tensor([0.2500, 0.5000])
    """

    name: ClassVar[str] = "norm_bound"

    clip_norm: float | None = parameter(None, doc="M; none: the median norm of the round", gt=0)
    noise_std: float = parameter(0.0, doc="standard deviation of the noise", ge=0)

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The mean of clipped rows; as scores the norms."""
        bound = float(median(rows.norms)) if self.clip_norm is None else self.clip_norm
        shares = clip_factors(rows.norms, bound) / rows.n
        vector = rows.weighted_sum(shares)
        if self.noise_std > 0:
            vector = vector + context.normal(rows.size, self.noise_std).to(vector.dtype)
        clipped = int((rows.norms > bound).sum())
        return Aggregate(vector, shares, scores=rows.norms, diagnostics={"clip-norm": bound, "clipped": clipped})
