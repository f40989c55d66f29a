"""Adaptive clipping without an exchange of its own: one more coordinate tells who was within C (Andrew et al. 2021).

Client i appends k (b_i - 1/2), b_i = 1 where its norm is within C, with k = z_sum C / count_noise. The vector's norm is
then at most C sqrt(1 + z_sum^2 / (2 count_noise)^2), and noise of standard deviation z_sum C is z times that: what the
plain release would cost. On the count the same noise is `count_noise` clients wide.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmeta.privacy.clipping import AdaptiveClip
from fedmeta.privacy.distributed.encoder import DistributedEncoder, clip
from fedmeta.privacy.distributed.hadamard import Floats


def count_per_sum_noise(adaptive: AdaptiveClip) -> float:
    """z_sum / count_noise; without any noise, where both are 0, that of z = 1 and the usual noise on the count."""
    if adaptive.noise_multiplier:
        return adaptive.sum_multiplier / adaptive.count_noise
    return 1 / max(adaptive.expected / 20, 1.0)


def augmented_norm(adaptive: AdaptiveClip, norm: float) -> float:
    """The largest norm of a vector clipped to `norm` and its count coordinate together.

    >>> clip = AdaptiveClip(0.5, 0.2, expected=100.0, noise_multiplier=1.0, count_noise=5.0)
    >>> round(clip.sum_multiplier / augmented_norm(clip, 1.0), 12)
    1.0
    """
    return norm * math.sqrt(1 + count_per_sum_noise(adaptive) ** 2 / 4)


@dataclass(frozen=True)
class AdaptiveEncoder:
    """An `Encoder` whose sums say, with noise, how many norms were within C.

    Attributes:
        inner: for vectors of one coordinate more, of norm `augmented_norm(adaptive, norm)`, without layers.
        adaptive: how C moves.
        norm: C > 0, of this round.
        layers: sizes of parts that are clipped apart, as for `DistributedEncoder`.
    """

    inner: DistributedEncoder
    adaptive: AdaptiveClip
    norm: float
    layers: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not math.isclose(self.inner.norm, augmented_norm(self.adaptive, self.norm), rel_tol=1e-9):
            raise ValueError(
                f"the inner encoder clips to {self.inner.norm}, and not to {augmented_norm(self.adaptive, self.norm)}"
            )

    @property
    def bits(self) -> int:
        """b."""
        return self.inner.bits

    def length(self, size: int) -> int:
        """Coordinates of the encoding of a vector of `size`."""
        return self.inner.length(size + 1)

    def encode(self, vector: npt.NDArray[np.floating[Any]], generator: np.random.Generator) -> npt.NDArray[Any]:
        """`[size]` floats to `[length(size)]`, uint32 or uint64."""
        clipped, length = clip(vector, self.norm, self.layers)
        return self.inner.encode(np.append(clipped, self._weight * ((length <= self.norm) - 0.5)), generator)

    def decode(self, total: npt.NDArray[Any], count: int) -> Floats:
        """The sum of `count` encodings to the noised sum of the vectors, `[size]`."""
        return self.split(total, count)[0]

    def split(self, total: npt.NDArray[Any], count: int) -> tuple[Floats, float]:
        """The sum of `count` encodings to the noised sum of the vectors, and the noised sum over clients of b - 1/2."""
        found = self.inner.decode(total, count)
        return found[:-1], float(found[-1]) / self._weight

    @property
    def _weight(self) -> float:
        return count_per_sum_noise(self.adaptive) * self.norm
