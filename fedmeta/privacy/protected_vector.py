"""What travels under the masks: an update, its weight and the training metrics as one vector of bounded entries.

Nothing that a client says of itself goes beside the masked vector, and so all of it is known as sums over a group only.
The vector of a client with update x, weight w and metrics m is

    f x,  f m / M c,  f c (1 where the client has the metric),  w / W c,  s c

where c bounds entries, M metrics and W weights, s is the share of clipped entries of x, and f is w / W where the mean
is weighted, else 1. Every entry is within [-c, c], as the fixed-point encoder wants it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmeta.errors import ConfigurationError, DataError

METRIC_SLOTS = 16
"""Places for metrics: the length of the vector must be agreed on before anyone trains."""

ROUNDING = 1e-3
"""Of a client's largest weight: more than fixed point rounds by, and too little to lie with."""


@dataclass(frozen=True)
class Layout:
    """Where things lie in the vector, and their bounds.

    Attributes:
        size: D of an update.
        bound: c, of an entry.
        metric_bound: M.
        weight_bound: W.
        weighted: whether the mean is weighted.
        bare: the update alone, as where noise is sized for a clipped update: no metric, no weight goes with it.
    """

    size: int
    bound: float
    metric_bound: float
    weight_bound: float
    weighted: bool = False
    bare: bool = False

    @property
    def length(self) -> int:
        """Entries of the vector."""
        return self.size if self.bare else self.size + 2 * METRIC_SLOTS + 2

    def pack(
        self, update: npt.NDArray[np.floating[Any]], weight: float, metrics: Mapping[str, float]
    ) -> npt.NDArray[Any]:
        """The vector `[length]` of one client.

        Args:
            update: `[size]`, finite; entries beyond the bound are clipped.
            weight: 0 <= weight <= W.
            metrics: by name; they lie in the order of names. One that is not a number is left out.

        Raises:
            DataError: an update that is not finite, or not `[size]`.
            ConfigurationError: a weight beyond W, or more metrics than there is room for.
        """
        if update.shape != (self.size,):
            raise DataError(f"an update of shape {update.shape} where ({self.size},) is due")
        if not np.isfinite(update).all():
            raise DataError("the update has values that are NaN or infinite")
        if self.bare:
            return update
        if not 0 <= weight <= self.weight_bound:
            raise ConfigurationError(
                # Not the weight itself, which is the client's own affair.
                f"a client's weight is not >= 0 and <= secagg.weight_bound = {self.weight_bound:g}: raise the bound"
            )
        if len(metrics) > METRIC_SLOTS:
            raise ConfigurationError(f"{len(metrics)} training metrics: at most {METRIC_SLOTS} go into a masked vector")
        vector = np.zeros(self.length, np.result_type(update.dtype, np.float32))
        share = float(np.count_nonzero(np.abs(update) > self.bound)) / max(1, self.size)
        np.clip(update, -self.bound, self.bound, out=vector[: self.size])
        for slot, name in enumerate(sorted(metrics)):
            if not np.isnan(metrics[name]):
                value = np.clip(metrics[name], -self.metric_bound, self.metric_bound)
                vector[self.size + slot] = value / self.metric_bound * self.bound
                vector[self.size + METRIC_SLOTS + slot] = self.bound
        if self.weighted:
            vector *= weight / self.weight_bound
        vector[-2:] = weight / self.weight_bound * self.bound, share * self.bound
        return vector

    def unpack(self, total: npt.NDArray[np.float64], count: int, names: Sequence[str]) -> "GroupMean":
        """What the sum `[length]` of `count` clients' vectors says.

        Args:
            total: of the vectors.
            count: clients in the sum, at least 1.
            names: of the metrics, in order.

        Raises:
            DataError: a weighted mean of weights that are all zero, or weights whose sum no honest clients can have.
        """
        if self.bare:
            return GroupMean(total / count, count * self.weight_bound, {}, None)
        share = float(total[-2]) / self.bound
        if not -ROUNDING * count <= share <= (1 + ROUNDING) * count:
            raise DataError(
                f"the weights of {count} clients add up to {share * self.weight_bound:.4g}, where each is within 0 and "
                f"{self.weight_bound:g}: one of them at least is no honest client"
            )
        weight = max(0.0, share) * self.weight_bound
        divisor = weight / self.weight_bound if self.weighted else count
        if divisor == 0:
            raise DataError("the weights of all clients of the group are zero: there is no mean")
        values = total[self.size : self.size + METRIC_SLOTS] / self.bound * self.metric_bound
        present = total[self.size + METRIC_SLOTS : self.size + 2 * METRIC_SLOTS] / self.bound
        metrics = {name: float(values[slot] / present[slot]) for slot, name in enumerate(names) if present[slot] > 0}
        clipped = max(0.0, float(total[-1])) / self.bound / count
        return GroupMean(total[: self.size] / divisor, weight, metrics, clipped)


@dataclass(frozen=True, eq=False)
class GroupMean:
    """What a server learns of a group.

    Attributes:
        update: `[size]`, the mean.
        weight: the sum of weights; where they were not sent all are taken for W.
        metrics: their means.
        clipped: share of the clients' entries that were clipped; None where it is not told.
    """

    update: npt.NDArray[np.float64]
    weight: float
    metrics: dict[str, float]
    clipped: float | None
