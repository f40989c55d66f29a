"""Numbers, identifiers and byte strings laid end to end, little-endian, and read back with every length checked."""

from collections.abc import Iterable
from typing import Self

import numpy as np

from fedmeta.privacy.secagg.failures import Refused


class Packer:
    """Collects fields; `data()` is their concatenation."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def number(self, value: int, width: int) -> Self:
        """An unsigned integer of `width` bytes."""
        self._parts.append(value.to_bytes(width, "little"))
        return self

    def fixed(self, value: bytes) -> Self:
        """Bytes whose length the reader knows."""
        self._parts.append(value)
        return self

    def text(self, value: bytes) -> Self:
        """Bytes with their length (at most 65535) in front."""
        return self.number(len(value), 2).fixed(value)

    def identifiers(self, values: Iterable[int]) -> Self:
        """Node identifiers, 8 bytes each, their count in front."""
        found = list(values)
        return self.number(len(found), 4).fixed(np.array(found, dtype="<u8").tobytes())

    def data(self) -> bytes:
        """All fields, in order."""
        return b"".join(self._parts)


class Unpacker:
    """Reads the fields of a `Packer` in order.

    Raises:
        Refused: by any method where the bytes end too early, and by `finish` where some are left over.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data).cast("B")
        self._at = 0

    def view(self, length: int) -> memoryview:
        """The next bytes where they lie."""
        if length > len(self._data) - self._at:
            raise Refused(f"a message ends after {len(self._data)} bytes, within a field of {length}")
        self._at += length
        return self._data[self._at - length : self._at]

    def fixed(self, length: int) -> bytes:
        """The next bytes."""
        return bytes(self.view(length))

    def number(self, width: int) -> int:
        """An unsigned integer."""
        return int.from_bytes(self.view(width), "little")

    def text(self) -> bytes:
        """Bytes with their length in front."""
        return self.fixed(self.number(2))

    def identifiers(self) -> tuple[int, ...]:
        """Node identifiers, which must ascend: a list that names one twice is refused here."""
        count = self.number(4)
        found = np.frombuffer(self.view(8 * count), dtype="<u8")
        if count > 1 and not bool(np.all(found[1:] > found[:-1])):
            raise Refused("a list of members is not in ascending order, or names one twice")
        return tuple(found.tolist())

    def finish(self) -> None:
        """State that nothing follows."""
        left = len(self._data) - self._at
        if left:
            raise Refused(f"a message has {left} bytes more than its fields")
