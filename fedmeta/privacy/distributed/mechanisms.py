"""The distributed mechanisms as what a ledger holds: all that their privacy depends on, and no more."""

import math
from dataclasses import dataclass
from typing import ClassVar

from fedmeta.errors import ConfigurationError
from fedmeta.parameters import require_number
from fedmeta.privacy.distributed import discrete_gaussian, rounding, skellam
from fedmeta.privacy.distributed.hadamard import Floats


@dataclass(frozen=True)
class _Rounded:
    """A sum of contributions that were clipped to norm C, rotated, rounded to integers, and noised by their owners.

    Args:
        noise_multiplier: z, standard deviation over C of the noise of the fewest honest survivors, >= 0.
        granularity: integers to a clip norm, s C > 0.
        size: coordinates that are sent, padding included, >= 1.
    """

    noise_multiplier: float
    granularity: float
    size: int
    exactness: ClassVar[str] = (
        "integer noise from a float64 sampler: near the law that the bound speaks of, and not exactly it"
    )

    def __post_init__(self) -> None:
        require_number("noise_multiplier", self.noise_multiplier)
        require_number("granularity", self.granularity)
        require_number("size", self.size, whole=True)
        if not self.noise_multiplier >= 0:
            raise ConfigurationError(
                f"noise_multiplier = {self.noise_multiplier} must be finite and >= 0: it is the noise's standard "
                "deviation over the clip norm"
            )
        if not (0 < self.granularity <= rounding.LARGEST_NORM and self.size >= 1):
            raise ConfigurationError(
                f"granularity = {self.granularity} must be > 0, <= 2^30, and size = {self.size} >= 1"
            )

    @property
    def deviation(self) -> float:
        """Standard deviation of all the noise that counts, in integers."""
        return self.noise_multiplier * self.granularity

    @property
    def l2(self) -> float:
        """The largest norm of a rounded contribution, in integers: a little more than the granularity."""
        return rounding.bound(self.granularity, self.size)

    @property
    def l1(self) -> float:
        """The largest sum of absolute values: min{ sqrt(d) l2, l2^2 }, the latter since they are integers."""
        return min(math.sqrt(self.size) * self.l2, self.l2**2)


@dataclass(frozen=True)
class Skellam(_Rounded):
    """Skellam noise of all survivors together (Agarwal et al. 2021); arguments as for all of this kind."""

    analysis: ClassVar[str] = "Agarwal, Kairouz, Liu 2021, corollary 3.6"

    def __str__(self) -> str:
        return f"Skellam shares, z = {self.noise_multiplier:g}, {self.granularity:.4g} integers to a clip norm"

    def curve(self, orders: Floats, sensitivity: int) -> Floats:
        """epsilon(alpha) of one application, where neighbours differ by so many contributions."""
        return skellam.rdp(orders, sensitivity * self.l2, sensitivity * self.l1, self.deviation)


@dataclass(frozen=True)
class DiscreteGaussian(_Rounded):
    """Discrete Gaussian noise, the sum of so many shares (Kairouz, Liu, Steinke 2021).

    Args:
        shares: of noise that count, those of the fewest honest survivors, >= 1.
    """

    shares: int
    analysis: ClassVar[str] = "Kairouz, Liu, Steinke 2021, proposition 14"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("shares", self.shares, whole=True)
        if self.shares < 1:
            raise ConfigurationError(f"shares = {self.shares} must be >= 1: no one's noise would count")
        least = discrete_gaussian.SMALLEST_DEVIATION
        if self.noise_multiplier and self.share < least:
            raise ConfigurationError(
                f"noise_multiplier = {self.noise_multiplier:g}, granularity = {self.granularity:g}, shares = "
                f"{self.shares}: a share of discrete Gaussian noise would be {self.share:.3g} integers wide, not >= "
                f"{least:g}: sums "
                "of coarser ones are far from a discrete Gaussian. Use 64 bits, privacy.mechanism = 'skellam', or "
                "smaller groups"
            )

    def __str__(self) -> str:
        return (
            f"sum of {self.shares} discrete Gaussians, z = {self.noise_multiplier:g}, {self.granularity:.4g} integers "
            "to a clip norm"
        )

    @property
    def share(self) -> float:
        """The parameter of one share, in integers: about its standard deviation."""
        return self.deviation / math.sqrt(self.shares)

    def curve(self, orders: Floats, sensitivity: int) -> Floats:
        """epsilon(alpha) of one application, where neighbours differ by so many contributions."""
        l2, l1 = sensitivity * self.l2, sensitivity * self.l1
        return discrete_gaussian.rdp(orders, l2, l1, self.share, self.shares, self.size)
