"""Uniform words from which protecting noise is made, in whole blocks: numpy's own samplers take a generator of theirs,
which is not cryptographic, and of which a server that saw enough could foretell the rest."""

import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fedmeta.privacy.distributed.hadamard import Floats
from fedmeta.privacy.distributed.rounding import Integers

Words = Callable[[int], npt.NDArray[np.uint64]]
"""How many -> that many independent uniform 64-bit words; every call gives fresh ones."""

_BLOCK = 1 << 16
"""Draws made at once: what is in between stays in the processor's cache."""


def system_words(count: int) -> npt.NDArray[np.uint64]:
    """As in a deployment: AES-256 in counter mode under a fresh key of the operating system's, ten times its speed."""
    from fedmeta.privacy.secagg.masks import mask

    return mask(os.urandom(32), count, bits=64)


def words_of(generator: np.random.Generator) -> Words:
    """Reproducible words, for simulations. Whoever knows the seed can subtract what is made of them."""
    return lambda count: generator.integers(0, 1 << 64, size=count, dtype=np.uint64)


def uniforms(words: Words, count: int) -> Floats:
    """`[count]` in the open interval (0, 1), at the centres of 2^52 cells."""
    found: Floats = ((words(count) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return found


def accepted(count: int, attempt: Callable[[int], Integers], rate: float) -> Integers:
    """`[count]` draws by rejection.

    Args:
        count: how many, >= 0.
        attempt: how many to try -> those that were accepted, in the order of their proposals.
        rate: about the share that is, in (0, 1].
    """
    found, have = np.empty(count, dtype=np.int64), 0
    while have < count:
        more = attempt(min(int((count - have) / rate) + 16, _BLOCK))[: count - have]
        found[have : have + len(more)] = more
        have += len(more)
    return found
