"""Why an aggregator scored a client as it did: the share of each layer in its score."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedmeta.explain.worth import shapley

Score = Callable[[Tensor], Tensor]
"""Updates `[n, D]` to their scores `[n]`, higher being more suspicious."""

PERMUTATIONS = 40
"""Orders of layers that are tried where there are too many layers to enumerate."""


@dataclass(frozen=True)
class ScoreShares:
    """One client's score, taken apart.

    Attributes:
        score: as the aggregator gave it.
        ordinary: what it would have been with the reference in place of the client's update.
        layers: layer -> its Shapley value, in units of the score; their sum is `score - ordinary`.
        errors: layer -> standard error; zero where all sets of layers were tried.
    """

    score: float
    ordinary: float
    layers: dict[str, float]
    errors: dict[str, float]

    @property
    def shares(self) -> dict[str, float]:
        """Layer -> its part of `score - ordinary`; may be negative. Empty where there is no difference to share."""
        whole = self.score - self.ordinary
        return {layer: value / whole for layer, value in self.layers.items()} if whole else {}


def score_shares(
    updates: Tensor,
    row: int,
    layers: Mapping[str, Tensor],
    score: Score,
    *,
    reference: Tensor | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> ScoreShares:
    """Share out one row's score among layers, for any rule: Shapley values of whose entries are the client's own.

    v(S) is the row's score when its layers in S are its own and the others are the reference's, all other rows staying
    as they are. For a score that is a sum over layers (a squared norm, squared distances to given rows) the values are
    the summands.

    Args:
        updates: `[n, D]`, n >= 2.
        row: whose score.
        layers: layer -> its columns; together all of them.
        score: the rule.
        reference: `[D]`, an ordinary update; None: the coordinate-wise median of the other rows.
        permutations: orders of layers to try where 2^layers would be more.
        seed: of these.
    """
    if reference is None:
        reference = torch.cat([updates[:row], updates[row + 1 :]]).median(dim=0).values
    names = list(layers)

    def value(own: frozenset[int]) -> float:
        mixed = updates.clone()
        mixed[row] = reference
        for place in own:
            columns = layers[names[place]]
            mixed[row, columns] = updates[row, columns]
        return float(score(mixed)[row])

    found = shapley(len(names), value, permutations, np.random.default_rng(seed), tolerance=0.0)
    return ScoreShares(
        value(frozenset(range(len(names)))),
        value(frozenset()),
        dict(zip(names, found.values.tolist(), strict=True)),
        dict(zip(names, found.errors.tolist(), strict=True)),
    )
