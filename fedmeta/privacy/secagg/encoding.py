"""Float vectors as integers modulo 2^bits, so that a sum of masked vectors is exact."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedmeta.errors import ConfigurationError, DataError
from fedmeta.parameters import require_number

CHUNK = 1 << 15
"""Coordinates encoded at a time: the float64 scratch stays in a core's second cache."""


class Encoder(Protocol):
    """How a float vector becomes integers modulo 2^bits and their sum becomes floats again.

    `decode(sum of encode(x_i) mod 2^bits, count)` approximates the sum of the `count` vectors x_i.
    """

    @property
    def bits(self) -> int:
        """Width of a coordinate: 32 or 64."""

    def length(self, size: int) -> int:
        """Coordinates of the encoding of a vector of `size` floats."""

    def encode(self, vector: npt.NDArray[np.floating[Any]], generator: np.random.Generator) -> npt.NDArray[Any]:
        """`[size]` float32 or float64 -> `[length(size)]` uint32 or uint64."""

    def decode(self, total: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
        """The sum modulo 2^bits of `count` encodings, `[length(size)]` -> the sum of the vectors, float64."""


@dataclass(frozen=True)
class FixedPoint:
    """Scaled integers with stochastic rounding; the sum of up to `max_count` of them never wraps.

    x -> Q(s clip(x, +-bound)), s = (2^(bits-1) - 1 - n) / (n bound), Q(y) = floor(y) + Bernoulli(y - floor(y)), and
    the integer is clipped to +-floor((2^(bits-1) - 1) / n). Unbiased within the bound; the variance per client and
    coordinate is at most 1 / (4 s^2).

    Args:
        bits: 32, or 64 for more than 1000 clients or high precision.
        bound: the largest magnitude of a coordinate, > 0; larger ones are cut (`clipped` counts them).
        max_count: the most vectors in a sum, 1 <= n <= 2^(bits-2).

    Raises:
        ConfigurationError: settings out of these bounds.

    >>> coder = FixedPoint(bits=32, bound=2.0, max_count=3)
    >>> a, b = (coder.encode(np.array([0.5, x]), np.random.default_rng(0)) for x in (-1.25, 7.0))
    >>> coder.decode(a + b, count=2).round(6)
    array([1.  , 0.75])
    >>> coder.clipped(np.array([0.5, 7.0]))
    1
    """

    bits: int = 32
    bound: float = 1.0
    max_count: int = 100

    def __post_init__(self) -> None:
        if self.bits not in (32, 64):
            raise ConfigurationError(f"secure aggregation: bits = {self.bits} must be 32 or 64")
        require_number("secagg bound", self.bound)
        require_number("secagg max_count", self.max_count, whole=True)
        if not self.bound > 0:
            raise ConfigurationError(
                f"secure aggregation: bound = {self.bound} must be a number > 0: the largest magnitude of a coordinate"
            )
        if not 1 <= self.max_count <= 2 ** (self.bits - 2):
            raise ConfigurationError(
                f"secure aggregation: max_count = {self.max_count} must be >= 1 and <= 2^{self.bits - 2}, or nothing "
                f"is left of {self.bits} bits for the values"
            )
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise ConfigurationError(
                f"secure aggregation: bound = {self.bound} gives no usable scale; take one nearer 1"
            )

    @cached_property
    def scale(self) -> float:
        """s: integer steps per unit."""
        n = self.max_count
        return float((2 ** (self.bits - 1) - 1 - n) / (n * self.bound))

    @cached_property
    def largest(self) -> int:
        """The largest magnitude of one encoded coordinate: `max_count` of them stay below 2^(bits-1)."""
        return (2 ** (self.bits - 1) - 1) // self.max_count

    def length(self, size: int) -> int:
        """A coordinate for a coordinate."""
        return size

    def encode(self, vector: npt.NDArray[np.floating[Any]], generator: np.random.Generator) -> npt.NDArray[Any]:
        """`[size]` floats -> `[size]` uint32 or uint64, two's complement.

        Raises:
            DataError: a NaN or an infinity, which no sum could hold.
        """
        values = np.ascontiguousarray(vector).reshape(-1)
        if not np.issubdtype(values.dtype, np.floating):
            raise DataError(f"secure aggregation: a vector of {values.dtype} is encoded as floats: convert it")
        signed = np.empty(values.size, dtype=np.int32 if self.bits == 32 else np.int64)
        limit = _float_at_most(self.largest)
        scaled, draws = np.empty(min(CHUNK, values.size)), np.empty(min(CHUNK, values.size))
        for start in range(0, values.size, CHUNK):
            part = values[start : start + CHUNK]
            y, u = scaled[: part.size], draws[: part.size]
            finite = np.isfinite(part)
            if not finite.all():
                wrong = start + int(np.argmin(finite))
                raise DataError(
                    f"secure aggregation: coordinate {wrong} is {values[wrong]}; only numbers can be summed"
                )
            np.clip(part, -self.bound, self.bound, out=y, dtype=np.float64)
            y *= self.scale
            low = np.floor(y)
            y -= low
            generator.random(out=u)
            low += u < y
            np.clip(low, -limit, limit, out=low)
            signed[start : start + part.size] = low
        return signed.view(np.uint32 if self.bits == 32 else np.uint64)

    def decode(self, total: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
        """`[size]` uint32 or uint64, the sum of `count` encodings -> the sum of the vectors, float64.

        Raises:
            ConfigurationError: more vectors than the scale was made for: their sum may have wrapped.
        """
        if not 0 <= count <= self.max_count:
            raise ConfigurationError(
                f"secure aggregation: a sum of {count} vectors was encoded for at most max_count = {self.max_count}"
            )
        words = total.astype(np.uint32 if self.bits == 32 else np.uint64, copy=False)
        signed: npt.NDArray[np.signedinteger[Any]] = words.view(np.int32 if self.bits == 32 else np.int64)
        return np.asarray(signed / self.scale, dtype=np.float64)

    def clipped(self, vector: npt.NDArray[np.floating[Any]]) -> int:
        """How many coordinates lie beyond the bound, where `encode` cuts them."""
        return int(np.count_nonzero(np.abs(vector) > self.bound))


def _float_at_most(value: int) -> float:
    """The largest float64 that is not above an integer (2^63 - 1 would round up to 2^63, which wraps)."""
    found = float(value)
    return found if int(found) <= value else float(np.nextafter(found, 0.0))
