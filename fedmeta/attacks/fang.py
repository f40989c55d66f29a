"""Directed deviation attacks (Fang et al., USENIX Security 2020, section 4)."""

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fedmeta.attacks.base import AttackContext, AttackImpossible, UpdateAttack
from fedmeta.attacks.direction import squared_distances
from fedmeta.parameters import parameter

SMALLEST = 1e-5
"""Step at which the search against Krum gives up, as in the paper."""


@dataclass(frozen=True)
class Fang(UpdateAttack):
    """Move the aggregate against s = sign(mu), the direction in which the benign clients would take it.

    Against coordinate-wise rules (section 4.3) each attacker draws beyond the benign extreme on the far side: where
    s = -1 from U[w_max, b w_max] (U[w_max, w_max / b] for w_max <= 0), where s = +1 from U[w_min / b, w_min]
    (U[b w_min, w_min] for w_min <= 0); where s = 0 there is nothing to oppose, and 0 is sent. Against Krum (section
    4.2) all send -lambda s, lambda halved from the paper's bound until Krum, knowing f = m, picks such a row.

    >>> Fang(rule="median")(torch.tensor([[0.0], [-2.0]]), n_malicious=1, generator=torch.Generator())
    tensor([[0.]])
    """

    random: ClassVar[bool] = True

    rule: Literal["median", "trimmed_mean", "krum"] = parameter(doc="the aggregation rule that is attacked")
    b: float = parameter(2.0, gt=1, doc="how far beyond the benign extreme, as a factor")

    @property
    def needs_benign(self) -> bool:
        """Krum is defined for a majority of benign rows only."""
        return self.rule == "krum"

    def craft(
        self, rows: Tensor, n_malicious: int, generator: torch.Generator | None, context: AttackContext
    ) -> Tensor:
        """`[m, D]` draws against coordinate-wise rules, the same row `[D]` against Krum.

        Raises:
            AttackImpossible: `rule = "krum"` with so many attackers that Krum is not defined, n <= 2 m + 2.
        """
        if self.rule == "krum":
            return against_krum(rows, n_malicious)
        low, high = beyond(rows, self.b)
        draws = torch.rand((n_malicious, rows.shape[1]), generator=generator, dtype=rows.dtype)
        return low + draws * (high - low)


def beyond(rows: Tensor, b: float) -> tuple[Tensor, Tensor]:
    """Ends `[D]`, `[D]` of the intervals to draw from, given benign rows `[k, D]`."""
    s, top, bottom = rows.mean(dim=0).sign(), rows.amax(dim=0), rows.amin(dim=0)
    far_above = torch.where(top > 0, b * top, top / b)
    far_below = torch.where(bottom > 0, bottom / b, b * bottom)
    low = torch.where(s < 0, top, far_below)
    high = torch.where(s < 0, far_above, bottom)
    return torch.where(s == 0, 0.0, low), torch.where(s == 0, 0.0, high)


def against_krum(rows: Tensor, n_malicious: int) -> Tensor:
    """-lambda sign(mu), the largest lambda on the halving path at which Krum picks a malicious row; warns if none is.

    Raises:
        AttackImpossible: n <= 2 m + 2.
    """
    n = rows.shape[0] + n_malicious
    if n <= 2 * n_malicious + 2:
        raise AttackImpossible(
            f"fang against Krum: {n_malicious} attackers of {n} clients, and Krum needs n > 2 f + 2: take fewer"
        )
    direction = -rows.mean(dim=0).sign()
    size = _bound(rows, n_malicious)
    while size >= SMALLEST:
        if krum_choice(torch.cat([rows, (size * direction).repeat(n_malicious, 1)]), n_malicious) >= rows.shape[0]:
            return size * direction
        size /= 2
    warnings.warn(
        f"fang: Krum picks no malicious row down to lambda = {SMALLEST:g}; it is sent all the same", stacklevel=4
    )
    return SMALLEST * direction


def _bound(rows: Tensor, n_malicious: int) -> float:
    """Theorem 1 of the paper: where to start; what is right is decided by asking Krum."""
    k, size = rows.shape
    neighbours = k - 2  # n - c - 2 of the n - c benign rows: all but the row itself and the farthest
    nearest = squared_distances(rows).sort(dim=1).values[:, 1 : neighbours + 1].sum(dim=1)
    apart = max(1, k - n_malicious - 1)
    return math.sqrt(float(nearest.min()) / (apart * size)) + float(rows.norm(dim=1).max()) / math.sqrt(size)


def krum_choice(rows: Tensor, f: int) -> int:
    """The row of `[n, D]` with the smallest sum of squared distances to its n - f - 2 nearest others (Blanchard 2017).

    >>> krum_choice(torch.tensor([[0.0], [0.1], [0.2], [0.1], [9.0]]), f=1)
    1
    """
    n = rows.shape[0]
    # The first column of the sorted distances is the row's own zero.
    scores = squared_distances(rows).sort(dim=1).values[:, 1 : n - f - 1].sum(dim=1)
    return int(scores.argmin())
