"""A client's reply to a train message as an attacker reads and rewrites it: one vector, whatever its arrays."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedmeta.wire import IDLE

Layout = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Record, key and shape of every floating-point array that a client got and sent back, in the order sent."""


def layout_of(sent: RecordDict, got: RecordDict) -> Layout:
    """The arrays of a reply that make its update."""
    found = []
    for name, record in sent.array_records.items():
        answer = got.array_records.get(name, ArrayRecord())
        for key, array in record.items():
            if key in answer and tuple(answer[key].shape) == tuple(array.shape) and "float" in array.dtype:
                found.append((name, key, tuple(array.shape)))
    return tuple(found)


def vector_of(content: RecordDict, layout: Layout) -> npt.NDArray[Any]:
    """The arrays of a layout, one after the other, as `[D]`."""
    return np.concatenate([content.array_records[name][key].numpy().ravel() for name, key, _ in layout])


@dataclass(frozen=True)
class TrainReply:
    """A client's reply to a train message, as an update."""

    client: int
    message: Message
    reply: Message
    layout: Layout

    @property
    def is_delta(self) -> bool:
        """Whether the reply says that it is an update, not a model."""
        return any(record.get("update-form") == "delta" for record in self.reply.content.config_records.values())

    def update(self) -> npt.NDArray[Any]:
        """One vector `[D]`: the delta that the reply is, or that it makes with what was sent."""
        vector = vector_of(self.reply.content, self.layout)
        return vector if self.is_delta else vector - vector_of(self.message.content, self.layout)

    def rewrite(self, update: npt.NDArray[Any]) -> None:
        """Put an update `[D]` into the reply, in its own form, dtypes and shapes."""
        vector = update if self.is_delta else update + vector_of(self.message.content, self.layout)
        records, start = self.reply.content.array_records, 0
        changed = {name: dict(records[name]) for name, _, _ in self.layout}
        for name, key, shape in self.layout:
            piece = vector[start : start + math.prod(shape)].reshape(shape)
            changed[name][key] = Array(piece.astype(records[name][key].dtype))
            start += piece.size
        arrays = {name: ArrayRecord(values) for name, values in changed.items()}
        # A new content, since the old one may be shared with the client's own state.
        self.reply.content = RecordDict({**self.reply.content, **arrays})

    def say_idle(self, why: str) -> None:
        """Tell the strategy that the attack could not act, where the reply is of the form that has a place for it."""
        for name, record in self.reply.content.config_records.items():
            if "update-form" in record:
                changed = {name: ConfigRecord({**record, IDLE: why})}
                self.reply.content = RecordDict({**self.reply.content, **changed})
