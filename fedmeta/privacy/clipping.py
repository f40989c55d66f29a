"""Clipping contributions to a norm: fixed, per layer, or following a quantile of the norms (Andrew et al. 2021)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError


def clip_rows(rows: Tensor, norm: float, layers: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """Scale each row down to a norm of at most `norm`.

    Computed in float64, so that rounding cannot carry a row over the bound by more than 1e-15 of it. A row of
    zeros stays as it is. A row that holds NaN or infinity becomes zero: whatever one unit does, the
    sum moves by a bounded amount.

    Args:
        rows: `[n, D]`, n >= 0; never modified.
        norm: C >= 0.
        layers: sizes of consecutive parts, summing to D; each is clipped to C / sqrt(number of parts), so that the
            whole keeps to C. Empty for one part.

    Returns:
        The clipped rows `[n, D]` and their norms before clipping `[n]` (infinite for a row that became zero), float64.

    >>> clip_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.3, 0.4]]), 1.0)[0].tolist()
    [[0.6000000000000001, 0.8], [0.0, 0.0], [0.30000001192092896, 0.4000000059604645]]
    """
    exact = rows.to(torch.float64)
    norms = exact.norm(dim=1)
    broken = ~torch.isfinite(norms)
    if broken.any():
        exact = exact.masked_fill(broken.unsqueeze(1), 0.0)
        norms = norms.masked_fill(broken, math.inf)
    parts = exact.split(list(layers), dim=1) if layers else (exact,)
    bound = norm / math.sqrt(len(parts))
    clipped = [part * _scale(part.norm(dim=1), bound).unsqueeze(1) for part in parts]
    return (torch.cat(clipped, dim=1) if len(clipped) > 1 else clipped[0]), norms


def _scale(norms: Tensor, bound: float) -> Tensor:
    # The tiny floor only serves a norm of zero, whose row any factor leaves as it is.
    return (bound / norms.clamp_min(torch.finfo(torch.float64).tiny)).clamp(max=1.0)


def clipped_sum(rows: Tensor, norm: float, layers: Sequence[int] = ()) -> Tensor:
    """The sum `[D]`, float64, of clipped rows; added one after the other, in a fixed order. Zero rows give zeros."""
    clipped, _ = clip_rows(rows, norm, layers)
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for row in clipped:
        total += row
    return total


@dataclass(frozen=True)
class AdaptiveClip:
    """A clip norm that follows a quantile of the norms (Andrew et al. 2021, algorithm 1).

    Each unit says whether its norm is within C; the noised share of those that are moves C towards the quantile:
    C <- C exp(-rate (share - quantile)). Part of the noise multiplier z pays for the counting: the sum is released with
    z_sum = (z^-2 - (2 count_noise)^-2)^(-1/2), so that both together cost what z alone does.

    Attributes:
        quantile: share of units whose norm should be within C, in (0, 1).
        rate: of the change of log C, > 0.
        expected: the fixed expected cohort m, > 0.
        noise_multiplier: z of the whole release, >= 0.
        count_noise: standard deviation of the noise on the count; > z / 2.
    """

    quantile: float
    rate: float
    expected: float
    noise_multiplier: float
    count_noise: float

    def __post_init__(self) -> None:
        if self.noise_multiplier and self.noise_multiplier >= 2 * self.count_noise:
            raise ConfigurationError(
                f"privacy.count_noise = {self.count_noise:g} must be > half the noise multiplier "
                f"{self.noise_multiplier:g}: the count alone would cost more than the whole release may"
            )

    @classmethod
    def of(
        cls, quantile: float, rate: float, expected: float, noise_multiplier: float, count_noise: float | None
    ) -> "AdaptiveClip":
        """Where no count noise is given: the paper's, m / 20, or z where that is more, as it is in small cohorts."""
        usual = max(expected / 20, noise_multiplier) if noise_multiplier else 0.0
        return cls(quantile, rate, expected, noise_multiplier, usual if count_noise is None else count_noise)

    @property
    def sum_multiplier(self) -> float:
        """z_sum: what the noise on the sum of contributions is, in clip norms."""
        if not self.noise_multiplier:
            return 0.0
        return (self.noise_multiplier**-2 - (2 * self.count_noise) ** -2) ** -0.5

    def next(self, norm: float, norms: Tensor, noise: float) -> float:
        """The next C.

        Args:
            norm: C of this release.
            norms: `[n]`, of the contributions before clipping; n >= 0.
            noise: one standard normal draw.
        """
        within = float((norms <= norm).to(torch.float64).sum())
        return self.moved(norm, within - 0.5 * len(norms) + self.count_noise * noise, self.expected)

    def moved(self, norm: float, count: float, cohort: float) -> float:
        """The next C, from the noised sum over units of b - 1/2, where b is 1 for a norm within C.

        Args:
            norm: C of this release.
            count: the noised sum.
            cohort: units to divide by, > 0: the expected ones where it is secret who took part.
        """
        return norm * math.exp(-self.rate * (count / cohort + 0.5 - self.quantile))
