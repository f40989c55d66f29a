"""The randomised Walsh-Hadamard transform: an orthogonal map that spreads a vector evenly over its coordinates.

With it no coordinate of a vector of norm C is likely to be much larger than C / sqrt(d), so that a sum fits a small
modulus (Kairouz, Liu, Steinke, ICML 2021, section 4). Signs are public: whoever knows them learns nothing, and chance
matters only for how rarely a sum wraps.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_RADIX = 32
"""Rows of the matrices whose products make up a transform: few passes over memory, and few idle multiplications."""


def padded(size: int) -> int:
    """The least power of two that is at least `size` (>= 1).

    >>> padded(1), padded(5), padded(64)
    (1, 8, 64)
    """
    if size < 1:
        raise ValueError(f"size = {size} must be >= 1")
    return 1 << (size - 1).bit_length()


def walsh_hadamard(values: Floats) -> Floats:
    """H values / sqrt(d), H the Hadamard matrix of Sylvester's order; its own inverse, to rounding.

    Args:
        values: `[d]`, d a power of two; never modified.

    Raises:
        ValueError: d is no power of two.

    >>> walsh_hadamard(np.array([2.0, 0.0, 0.0, 0.0])).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    size = len(values)
    if size != padded(size):
        raise ValueError(f"a vector of {size} coordinates has no Walsh-Hadamard transform: pad it to {padded(size)}")
    # H of order r * rest is the Kronecker product of H of r and H of rest: a matrix product for each factor.
    found, rest = np.asarray(values, dtype=np.float64), size
    while rest > 1:
        radix = min(_RADIX, rest)
        rest //= radix
        if rest > 1:
            found = np.matmul(_matrix(radix), found.reshape(-1, radix, rest))
        else:
            found = found.reshape(-1, radix) @ _matrix(radix)  # symmetric
    return found.reshape(size) if size > 1 else found.copy()


@functools.cache
def _matrix(order: int) -> Floats:
    one = np.ones((1, 1))
    while len(one) < order:
        one = np.block([[one, one], [one, -one]])
    scaled: Floats = one / math.sqrt(order)
    return scaled


@dataclass(frozen=True)
class Rotation:
    """x -> H (signs * x, padded with zeros) / sqrt(d), which keeps norms.

    Attributes:
        size: coordinates of x.
        signs: `[d]`, each 1 or -1; d is `size` padded to a power of two.
    """

    size: int
    signs: Floats

    @classmethod
    def of(cls, size: int, generator: np.random.Generator) -> "Rotation":
        """With signs from a generator that all of a round share; by its raw bytes, which no library version changes."""
        length = padded(size)
        bits = np.unpackbits(np.frombuffer(generator.bytes(-(-length // 8)), dtype=np.uint8), count=length)
        return cls(size, 1.0 - 2.0 * bits.astype(np.float64))

    def apply(self, vector: Floats) -> Floats:
        """`[size]` to `[d]`."""
        spread = np.zeros(len(self.signs))
        spread[: self.size] = vector
        spread *= self.signs
        return walsh_hadamard(spread)

    def invert(self, rotated: Floats) -> Floats:
        """`[d]` back to `[size]`."""
        return (walsh_hadamard(rotated) * self.signs)[: self.size]
