"""A mean with its 95 % interval, or the word that there is none."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

Unit = Literal["episodes", "clients"]

TAIL = 0.025
"""What an interval of 95 % leaves out on either side."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    Attributes:
        mean: of the sample.
        low, high: its bounds; NaN where the values show no spread to tell them by.
        count: number of independent units.
        unit: what was taken as independent: episodes (one client) or clients (their means).
    """

    mean: float
    low: float
    high: float
    count: int
    unit: Unit

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def to_json(self) -> dict[str, Any]:
        """A JSON object, with null for an unknown bound; `Estimate.from_json` reads it back."""
        return asdict(self, dict_factory=json_object)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Estimate":
        """Rebuild from `to_json`; null becomes NaN.

        In files from before, an unknown interval has no width.
        """
        mean, low, high = (math.nan if data[key] is None else data[key] for key in ("mean", "low", "high"))
        low, high = (math.nan, math.nan) if low == high else (low, high)
        return cls(mean, low, high, data["count"], data["unit"])


def json_object(fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """For `dataclasses.asdict` of what holds estimates: null for their unknown bounds, which equals itself."""
    return {name: None if name in ("low", "high") and math.isnan(value) else value for name, value in fields}


def estimate(values: Sequence[float] | np.ndarray, unit: Unit) -> Estimate:
    """Mean and 95 % t interval of independent values.

    One value, and values that are all alike, have no interval here: a spread of 0 among those that were seen does not
    say that there is none among the others. What values can be may say more, see `within`.

    Raises:
        ValueError: no values.

    >>> e = estimate([0.0, 1.0, 0.0, 1.0], "episodes")
    >>> round(e.mean, 3), round(e.low, 3), round(e.high, 3)
    (0.5, -0.419, 1.419)
    """
    from scipy.special import stdtrit

    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("no values to estimate from")
    mean = float(sample.mean())
    if not np.isfinite(sample).all() or sample.min() == sample.max():
        return Estimate(mean, math.nan, math.nan, int(sample.size), unit)
    half = float(stdtrit(sample.size - 1, 1 - TAIL)) * float(sample.std(ddof=1)) / math.sqrt(sample.size)
    return Estimate(mean, mean - half, mean + half, int(sample.size), unit)


def within(found: Estimate, low: float, high: float) -> Estimate:
    """The same with an interval inside the values that there can be: a mean of shares lies in [0, 1].

    Where all of several values lie at one end, an exact interval stands in for the unknown one: that of Clopper and
    Pearson (1934) for n hits of n. With 97.5 % confidence at most 1 - 0.025^(1/n) of all values lie off that end, and
    none further off than the other.

    >>> within(Estimate(0.1, -0.2, 0.4, 3, "clients"), 0.0, 1.0).low
    0.0
    >>> round(within(estimate([0.0] * 200, "episodes"), 0.0, 1.0).high, 4)
    0.0183
    """
    if found.known:
        return replace(found, low=max(found.low, low), high=min(found.high, high))
    if found.count < 2 or found.mean not in (low, high) or not math.isfinite(high - low):
        return found
    reach = (high - low) * (1 - TAIL ** (1 / found.count))
    return replace(found, low=max(found.mean - reach, low), high=min(found.mean + reach, high))
