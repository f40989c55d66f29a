"""A clipped, rotated, rounded and noised vector as integers modulo 2^b, and a sum of them as floats again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmeta.errors import FedmetaError
from fedmeta.privacy.distributed.draws import Words
from fedmeta.privacy.distributed.hadamard import Floats, Rotation
from fedmeta.privacy.distributed.rounding import within
from fedmeta.privacy.distributed.shared_noise import SharedNoise


class TooFewSurvivors(FedmetaError):
    """A sum with less noise in it than was accounted: it must not be released."""


@dataclass(frozen=True)
class DistributedEncoder:
    """An `Encoder` of secure aggregation whose sums are differentially private.

    encode: clip to C (numbers that are none count as zero), pad, rotate, scale by s, round, add noise, take modulo 2^b.
    decode: centre, divide by s, rotate back. The sum has noise of standard deviation sqrt(count) z C / sqrt(honest) in
    each coordinate, and at most count / (4 s^2) more variance by rounding.

    Attributes:
        noise: how much, and how finely it is cut; its `size` is that of the vectors here.
        norm: C > 0, of this round.
        rotation: of this round, the same for all clients.
        words: what this client's noise is made of; None on a server, which only decodes. Rounding, which protects
            nobody, is drawn from the generator that `encode` is given.
        layers: sizes of consecutive parts, each clipped to C over the root of their number; empty for one part.
    """

    noise: SharedNoise
    norm: float
    rotation: Rotation
    words: Words | None = None
    layers: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.norm) and self.norm > 0):
            raise ValueError(f"norm = {self.norm} must be > 0")
        if self.rotation.size != self.noise.size:
            raise ValueError(f"a rotation of {self.rotation.size} coordinates does not fit {self.noise.size}")

    @property
    def bits(self) -> int:
        """b."""
        return self.noise.bits

    @property
    def scale(self) -> float:
        """s, integers to one."""
        return self.noise.granularity / self.norm

    def length(self, size: int) -> int:
        """Coordinates of the encoding: the next power of two."""
        self._check_size(size)
        return self.noise.length

    def encode(self, vector: npt.NDArray[np.floating[Any]], generator: np.random.Generator) -> npt.NDArray[Any]:
        """`[size]` floats to `[length(size)]`, uint32 or uint64.

        Raises:
            ValueError: a vector of another size, or an encoder without words for the noise.
        """
        self._check_size(len(vector))
        if self.words is None:
            raise ValueError("this encoder has nothing to make noise of: it only decodes")
        clipped, _ = clip(vector, self.norm, self.layers)
        found = within(self.rotation.apply(clipped) * self.scale, self.noise.granularity, generator)
        found += self.noise.draw(self.words)
        return found.view(np.uint64).astype(_unsigned(self.bits))  # modulo 2^b, by two's complement

    def decode(self, total: npt.NDArray[Any], count: int) -> Floats:
        """The sum modulo 2^b of `count` encodings, `[length]`, to the noised sum of the vectors, `[size]`, float64.

        Raises:
            TooFewSurvivors: fewer than the noise is sized for.
            ValueError: more than the modulus is sized for, or a sum of another length.
        """
        noise = self.noise
        if count < noise.survivors:
            raise TooFewSurvivors(
                f"{count} clients are left of a group, and privacy.min_survivors = {noise.survivors}: their sum holds "
                "less noise than was accounted, and is not released"
            )
        if count > noise.clients:
            raise ValueError(f"a sum over {count} clients, and the modulus is for {noise.clients} at most")
        if len(total) != noise.length:
            raise ValueError(f"a sum of {len(total)} coordinates, where {noise.length} are due")
        signed = total.astype(_unsigned(self.bits), copy=False).view(np.int32 if self.bits == 32 else np.int64)
        return self.rotation.invert(signed.astype(np.float64) / self.scale)

    def _check_size(self, size: int) -> None:
        if size != self.noise.size:
            raise ValueError(f"a vector of {size} coordinates, and this encoder is for {self.noise.size}")


def _unsigned(bits: int) -> type[np.uint32] | type[np.uint64]:
    return np.uint32 if bits == 32 else np.uint64


def clip(vector: npt.NDArray[np.floating[Any]], norm: float, layers: Sequence[int] = ()) -> tuple[Floats, float]:
    """A vector `[size]` scaled down to a norm of at most `norm`, in float64, and its norm before.

    A vector that holds NaN or infinity becomes zero, of infinite norm: whatever one client does, the sum moves by a
    bounded amount.

    >>> clip(np.array([3.0, 4.0]), 1.0)[0].round(3).tolist(), clip(np.array([0.0, np.nan]), 1.0)
    ([0.6, 0.8], (array([0., 0.]), inf))
    """
    exact = np.asarray(vector, dtype=np.float64)
    length = float(np.linalg.norm(exact))
    if not math.isfinite(length):
        return np.zeros_like(exact), math.inf
    parts = np.split(exact, np.cumsum(layers)[:-1]) if layers else [exact]
    most = norm / math.sqrt(len(parts))
    lengths = [float(np.linalg.norm(part)) for part in parts]
    scaled = [part * (most / own if own > most else 1.0) for part, own in zip(parts, lengths, strict=True)]
    return np.concatenate(scaled), length
