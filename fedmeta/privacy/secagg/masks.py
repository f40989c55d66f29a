"""Masks: AES-256-CTR keystreams (NIST SP 800-38A) read as little-endian words and added modulo 2^32 or 2^64."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

BLOCK = 16
CHUNK = 1 << 17
"""Bytes of keystream at a time: all keys pass over a part of the vector while it is in a core's second cache."""


def add_masks(vector: npt.NDArray[Any], add: Sequence[bytes], subtract: Sequence[bytes] = ()) -> None:
    """Add and subtract the masks of some keys in place.

    Args:
        vector: `[length]`, uint32 or uint64, contiguous and writeable.
        add, subtract: 32-byte keys. A key must mask one vector only: the counter starts at zero.

    Raises:
        ValueError: another dtype, or a vector that does not lie in one piece.
    """
    if vector.dtype not in (np.uint32, np.uint64) or not vector.flags.c_contiguous or not vector.flags.writeable:
        raise ValueError(f"masks are added to contiguous uint32 or uint64, not to {vector.dtype}")
    signed: list[tuple[bytes, np.ufunc]] = [*((key, np.add) for key in add), *((key, np.subtract) for key in subtract)]
    streams = [(Cipher(AES256(key), CTR(bytes(BLOCK))).encryptor(), combine) for key, combine in signed]
    size = min(CHUNK, vector.nbytes)
    zeros, stream = memoryview(bytes(size)), np.empty(size + BLOCK, dtype=np.uint8)
    words = stream[:size].view(vector.dtype.newbyteorder("<"))
    step = size // vector.itemsize
    for start in range(0, vector.size, max(step, 1)):
        part = vector[start : start + step]
        nothing = zeros[: part.nbytes]
        for encryptor, combine in streams:
            encryptor.update_into(nothing, stream.data)
            combine(part, words[: part.size], out=part)


def mask(key: bytes, length: int, bits: int) -> npt.NDArray[Any]:
    """One key's mask, `[length]` words of `bits` bits."""
    vector = np.zeros(length, dtype=np.uint32 if bits == 32 else np.uint64)
    add_masks(vector, [key])
    return vector
