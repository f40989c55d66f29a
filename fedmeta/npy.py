"""Arrays in the bytes of a .npy file, read where they lie and written in one copy. No torch, no Flower."""

import io
import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt


def view(stored: memoryview) -> npt.NDArray[Any] | None:
    """The array where it lies, read-only; None where the bytes are not a .npy file of version 1 without objects.

    Raises:
        ValueError: fewer bytes than the header announces.
    """
    # 6 bytes of magic, 2 of version, then the header's length (2 bytes in version 1) and its text.
    start = 10 + int.from_bytes(stored[8:10], "little")
    found = _header(bytes(stored[:start]))
    if found is None:
        return None
    shape, fortran, dtype = found
    flat = np.frombuffer(stored, dtype=dtype, count=math.prod(shape), offset=start)
    flat.flags.writeable = False
    return flat.reshape(shape, order="F" if fortran else "C")


def encode(array: npt.NDArray[Any]) -> bytes:
    """A .npy file, as `np.save` writes it."""
    values = np.ascontiguousarray(array)
    return b"".join((_header_of(values.dtype.str, array.shape), values.reshape(-1).view(np.uint8).data))


@lru_cache(maxsize=1024)
def _header(start: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]] | None:
    """Shape, order and dtype from a file's beginning: reading one takes 0.1 ms, and a model has few of them."""
    stream = io.BytesIO(start)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            return None
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except ValueError:
        return None
    return None if dtype.hasobject else (shape, fortran, dtype)


@lru_cache(maxsize=1024)
def _header_of(dtype: str, shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()
