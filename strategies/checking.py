"""Replies that would poison or end a strategy become errors: Flower's FedAvg averages NaN, for one."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from fedmeta.wire import WEIGHT

if TYPE_CHECKING:  # Flower's internals, for types only
    from flwr.proto.node_pb2 import NodeInfo
    from flwr.supercore.run import Run

UNKNOWN = 0
"""Flower's error code for what has no code of its own."""


def check_replies(messages: Sequence[Message], replies: Sequence[Message]) -> list[Message]:
    """Check replies to train and evaluate messages; others pass.

    Refused are: arrays under a record's name that was sent, with other keys, shapes or dtypes than were sent; values
    that are NaN or infinite; records or metric keys other than most replies have; a negative or non-finite weight; and
    where all weights are zero every reply, since no mean can be taken. Records that were not sent are the strategy's
    own affair.

    Args:
        messages: what was sent.
        replies: one each, in the same order.

    Returns:
        The replies, refused ones as error replies with the reason.
    """
    judged = [
        index
        for index, (message, reply) in enumerate(zip(messages, replies, strict=True))
        if reply.has_content() and message.metadata.message_type.split(".")[0] in ("train", "evaluate")
    ]
    usual = _usual([replies[index].content for index in judged])
    weightless = bool(judged) and all(_weight(replies[index].content) == 0 for index in judged)
    checked = list(replies)
    for index in judged:
        sent, got = messages[index].content, replies[index].content
        fault = _array_fault(sent, got) or _shape_fault(got, usual) or _weight_fault(got)
        if fault is None and weightless:
            fault = f"{WEIGHT} is 0 for every client: there is no mean"
        if fault is not None:
            checked[index] = Message(Error(UNKNOWN, f"refused: {fault}"), reply_to=messages[index])
    return checked


def _usual(contents: Sequence[RecordDict]) -> tuple[str, ...]:
    """The records and metric keys that most replies have."""
    counts = Counter(_shape(content) for content in contents)
    return counts.most_common(1)[0][0] if counts else ()


def _shape(content: RecordDict) -> tuple[str, ...]:
    metrics = [f"metric {name}.{key}" for name, record in content.metric_records.items() for key in record]
    return tuple(sorted([*(f"arrays {name}" for name in content.array_records), *metrics]))


def _shape_fault(content: RecordDict, usual: tuple[str, ...]) -> str | None:
    found = _shape(content)
    return None if found == usual else f"metrics and arrays {list(found)} where most clients send {list(usual)}"


def _weight(content: RecordDict) -> float | None:
    weights = [record[WEIGHT] for record in content.metric_records.values() if WEIGHT in record]
    return float(weights[0]) if weights and isinstance(weights[0], (int, float)) else None


def _weight_fault(content: RecordDict) -> str | None:
    weight = _weight(content)
    return None if weight is None or (math.isfinite(weight) and weight >= 0) else f"{WEIGHT} = {weight} is not a count"


def _array_fault(sent: RecordDict, got: RecordDict) -> str | None:
    for name, record in got.array_records.items():
        expected: ArrayRecord | None = sent.array_records.get(name)
        if expected is not None and set(record) != set(expected):
            return f"arrays {sorted(record)} where {sorted(expected)} were sent"
        for key, array in record.items():
            fault = _one_array_fault(key, array, expected[key] if expected is not None else None)
            if fault:
                return fault
    return None


def _one_array_fault(key: str, array: Array, expected: Array | None) -> str | None:
    if expected is not None and (tuple(array.shape), array.dtype) != (tuple(expected.shape), expected.dtype):
        return (
            f"array '{key}' is {array.dtype} {tuple(array.shape)}, not {expected.dtype} {tuple(expected.shape)} as sent"
        )
    try:
        values = array.numpy()
    except Exception as error:  # whatever the other side's bytes make the reader raise
        return f"array '{key}' has bytes that are no array: {error}"
    bad = _non_finite(values)
    return f"array '{key}' has {bad} values that are NaN or infinite" if bad else None


def _non_finite(values: npt.NDArray[Any]) -> int:
    if not np.issubdtype(values.dtype, np.inexact):
        return 0
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum()):  # a NaN or infinity would show; cheaper than looking at each
            return 0
    return int((~np.isfinite(values)).sum())


class CheckedGrid(Grid):
    """A Grid decorator that checks replies: `FedAvg().start(grid=CheckedGrid(grid), ...)` on Flower's own grids.

    Args:
        grid: the grid that carries the messages.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send, wait, and check what came; replies are matched to messages by id."""
        sent = list(messages)
        replies = list(self._grid.send_and_receive(sent, timeout=timeout))
        by_id = {message.metadata.message_id: message for message in sent}
        matched = [reply for reply in replies if reply.metadata.reply_to_message_id in by_id]
        return check_replies([by_id[reply.metadata.reply_to_message_id] for reply in matched], matched)

    def set_run(self, run: "Run") -> None:
        """Passed on."""
        self._grid.set_run(run)

    @property
    def run(self) -> "Run":
        """Passed on."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Passed on."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Passed on."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable["NodeInfo"]:
        """Passed on."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Passed on."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Passed on; unchecked, since what was sent is not known here."""
        return self._grid.pull_messages(message_ids)
