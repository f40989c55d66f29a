"""Moving messages between driver and actors without copying large arrays more than once.

Buffers are placed in shared memory by one copy, and read without any; bytes inside other objects are pickled in line,
which copies them again and again. So the bytes of large arrays travel beside the pickle, and are read where they lie.
"""

import copy
import copyreg
import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedmeta import npy
from simulations.engine.flower_internals import TypedDict, data_of, view

LARGE = 1 << 15
"""Arrays from this size travel beside the pickle [bytes]."""

IN_LINE = 1 << 16
"""What is below this size travels with a call or its answer, which is the shortest way for little [bytes]."""


class StoredArray(Array):
    """An Array whose bytes lie elsewhere, as in memory shared with an actor, and stay there for as long as it lives.

    It decodes without an intermediate copy; `data` copies, as do pickling and `settled`, which make a plain Array.
    """

    def __init__(self, dtype: str, shape: tuple[int, ...], stype: str, stored: npt.NDArray[np.uint8]) -> None:
        # Past Array's own setter, which minds what was hashed before: nothing was.
        self.__dict__.update(dtype=dtype, shape=shape, stype=stype, _stored=stored)

    @property
    def buffer(self) -> memoryview:
        """The encoded array where it lies."""
        return self._stored.data

    @property
    def data(self) -> bytes:
        """The encoded array."""
        return self._stored.tobytes()

    @data.setter
    def data(self, value: bytes) -> None:
        self._stored = np.frombuffer(value, dtype=np.uint8)

    def numpy(self) -> npt.NDArray[Any]:
        """A copy of the array that may be written to."""
        view = npy.view(self.buffer) if self.stype == "numpy.ndarray" else None
        return super().numpy() if view is None else view.copy(order="K")

    def plain(self) -> Array:
        """The same array with bytes of its own."""
        return Array(self.dtype, tuple(self.shape), self.stype, self.data)

    def deflate(self) -> bytes:
        """As a plain array: the class's name is part of what Flower hashes."""
        return self.plain().deflate()

    def __deepcopy__(self, memo: dict[int, Any]) -> Array:
        return StoredArray(self.dtype, self.shape, self.stype, self._stored)  # nobody can write to what is stored

    def __reduce__(self) -> tuple[Any, ...]:
        return Array, (self.dtype, tuple(self.shape), self.stype, self.data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        return (self.dtype, self.shape, self.stype) == (other.dtype, other.shape, other.stype) and (
            (isinstance(other, StoredArray) and other._stored is self._stored) or self.data == other.data
        )

    __hash__ = None  # type: ignore[assignment]


class ReceivedRecords(RecordDict):
    """Records that `unpack` or `fresh` made: their views by kind, which every strategy asks for, cost a tenth.

    Pickles and deep copies are plain RecordDicts.
    """

    @property
    def array_records(self) -> TypedDict[str, ArrayRecord]:
        """Dictionary holding only ArrayRecord instances."""
        return view(self, ArrayRecord)

    @property
    def metric_records(self) -> TypedDict[str, MetricRecord]:
        """Dictionary holding only MetricRecord instances."""
        return view(self, MetricRecord)

    @property
    def config_records(self) -> TypedDict[str, ConfigRecord]:
        """Dictionary holding only ConfigRecord instances."""
        return view(self, ConfigRecord)

    def deflate(self) -> bytes:
        """As plain records: the class's name is part of what Flower hashes."""
        return RecordDict(dict(self)).deflate()

    def __reduce__(self) -> tuple[Any, ...]:
        return RecordDict, (dict(self),)


def fresh(records: RecordDict) -> RecordDict:
    """The same records to write to: nothing is shared but the bytes of arrays, which nobody can write to."""
    return _records({name: _fresh(record) for name, record in records.items()})


def _fresh(record: Any) -> Any:
    own = record.copy()
    values = data_of(own)
    for key, value in values.items():
        if isinstance(value, Array):
            values[key] = _readable(value)
        elif isinstance(value, list):
            values[key] = list(value)
    return own


def copied(records: RecordDict) -> RecordDict:
    """The same arrays and values in records of their own."""
    return _records({name: record.copy() for name, record in records.items()})


def _readable(array: Array) -> Array:
    if isinstance(array, StoredArray):
        return StoredArray(array.dtype, array.shape, array.stype, array._stored)
    if len(array.data) >= LARGE:
        return StoredArray(array.dtype, array.shape, array.stype, np.frombuffer(array.data, dtype=np.uint8))
    return copy.copy(array)


def settled(records: RecordDict) -> RecordDict:
    """The same records with no array in shared memory: for what outlives a round."""
    result = RecordDict()
    for name, record in records.items():
        if isinstance(record, ArrayRecord):
            result[name] = ArrayRecord(
                {key: array.plain() if isinstance(array, StoredArray) else array for key, array in record.items()}
            )
        else:
            result[name] = record
    return result


@dataclass(frozen=True)
class Packed:
    """Any picklable value: its pickle, and the bytes of its large arrays, all as objects with the buffer protocol."""

    pickled: Any
    buffers: list[Any]

    @property
    def parts(self) -> list[Any]:
        """All of it, to be placed and put together again with `of`."""
        return [self.pickled, *self.buffers]

    @classmethod
    def of(cls, parts: Sequence[Any]) -> Self:
        """What `parts` took apart."""
        pickled, *buffers = parts
        return cls(pickled, buffers)

    @property
    def nbytes(self) -> int:
        """Size of all of it [bytes]."""
        return len(self.pickled) + sum(memoryview(buffer).nbytes for buffer in self.buffers)


def pack(value: Any) -> Packed:
    """Take a value apart; an array that occurs twice is packed once."""
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol=5, buffer_callback=buffers.append)
    pickler.dispatch_table = {**copyreg.dispatch_table, **_TAKEN_APART}
    pickler.dump(value)
    return Packed(stream.getvalue(), buffers)


def unpack(packed: Packed) -> Any:
    """Put a value together again; large arrays are read where they lie."""
    return pickle.loads(packed.pickled, buffers=packed.buffers)


_CHECKS = {name: check for name, check in RecordDict().__dict__.items() if name != "_data"}


def _reduced_records(records: RecordDict) -> tuple[Any, ...]:
    return _records, (dict(records),)


def _records(records: dict[str, Any]) -> RecordDict:
    received = object.__new__(ReceivedRecords)
    received.__dict__.update(_CHECKS, _data=records)
    return received


def _reduced(array: Array) -> tuple[Any, ...]:
    stored: Any = array._stored if isinstance(array, StoredArray) else array.data
    out = pickle.PickleBuffer(stored) if len(stored) >= LARGE else bytes(stored)
    return _array, (array.dtype, tuple(array.shape), array.stype, out)


def _array(dtype: str, shape: tuple[int, ...], stype: str, data: Any) -> Array:
    if isinstance(data, bytes):
        return Array(dtype, shape, stype, data)
    return StoredArray(dtype, shape, stype, np.frombuffer(data, dtype=np.uint8))


_TAKEN_APART: dict[type, Any] = {
    Array: _reduced,
    StoredArray: _reduced,
    RecordDict: _reduced_records,
    ReceivedRecords: _reduced_records,
}
