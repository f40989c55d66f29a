"""FLAME (Nguyen et al., USENIX Security 2022, algorithm 1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fedmeta.parameters import parameter
from strategies.aggregation import Aggregate, NotApplicable, RoundContext, Rule, nothing
from strategies.clustering import hdbscan, need_sklearn
from strategies.rows import Rows, as_cosines, clip_factors, median


@dataclass(frozen=True)
class FLAME(Rule):
    """Admit the majority cluster of directions, clip to the median norm S of all rows, average, add N(0, (lambda S)^2).

    HDBSCAN on the matrix of 1 - cos with min_cluster_size = floor(n / 2) + 1. Where no part of the rows is a cluster of
    that size, HDBSCAN takes all of them for one, less the most remote. Were nobody admitted the result would be zero,
    with an event. Below four rows nobody is left out. The noise is a defence against backdoors, not a privacy
    mechanism: it is drawn from the round's seeded generator.
    """

    name: ClassVar[str] = "flame"

    noise_factor: float = parameter(0.001, doc="lambda: the noise's standard deviation, as a multiple of S", ge=0)
    cosine_of: Literal["updates", "models"] = parameter(
        "updates", doc="whether directions are those of updates or, as the paper can be read, of whole local models"
    )

    @staticmethod
    def check_together(values: Mapping[str, Any], where: str) -> None:
        """Refuse it where there is nothing to cluster with."""
        need_sklearn(where)

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """The mean of admitted, clipped rows. Scores: the median of 1 - cos to the other rows."""
        distances = 1.0 - self._cosines(rows, context)
        scores = torch.stack([median(line) for line in distances])
        admitted = torch.ones(rows.n, dtype=torch.bool)
        if rows.n >= 4:
            admitted = hdbscan(distances, rows.n // 2 + 1, single=True) >= 0
        if not admitted.any():
            return nothing(rows, "FLAME found no majority cluster of directions", scores)
        bound = median(rows.norms)
        weights = admitted.to(torch.float64) / admitted.sum() * clip_factors(rows.norms, bound)
        vector = rows.weighted_sum(weights)
        std = self.noise_factor * float(bound)
        if std > 0:
            vector = vector + context.normal(rows.size, std).to(vector.dtype)
        return Aggregate(vector, weights, scores, ~admitted, diagnostics={"clip-norm": float(bound), "noise-std": std})

    def _cosines(self, rows: Rows, context: RoundContext) -> Tensor:
        if self.cosine_of == "updates":
            return rows.cosines
        if context.model is None:
            raise NotApplicable(
                "flame.cosine_of = 'models' needs the model: pass RoundContext(model=...), or use 'updates'"
            )
        # With u_i and the point -model: ||model + u_i|| is a distance, and the angle follows from three of them.
        lengths = rows.distances_to(-context.model)
        squares = lengths.square()
        return as_cosines((squares[:, None] + squares[None, :] - rows.squared_distances) / 2, lengths)
