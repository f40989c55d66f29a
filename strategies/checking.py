"""Replies that would poison or end a strategy become errors: Flower's FedAvg averages NaN, for one."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict

from fedmeta.wire import WEIGHT, array_view, non_finite
from strategies.decorator import GridDecorator

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
    judged = {
        index: _outline(reply.content)
        for index, (message, reply) in enumerate(zip(messages, replies, strict=True))
        if reply.has_content() and message.metadata.message_type.split(".")[0] in ("train", "evaluate")
    }
    usual = Counter(outline.names for outline in judged.values()).most_common(1)[0][0] if judged else ()
    weightless = bool(judged) and all(outline.weight == 0 for outline in judged.values())
    checked = list(replies)
    sent: dict[int, Mapping[str, ArrayRecord]] = {}
    for index, outline in judged.items():
        content = messages[index].content
        if id(content) not in sent:
            sent[id(content)] = content.array_records
        fault = _array_fault(sent[id(content)], outline.arrays) or _weight_fault(outline.weight)
        if fault is None and outline.names != usual:
            fault = f"metrics and arrays {list(outline.names)} where most clients send {list(usual)}"
        if fault is None and weightless:
            fault = f"{WEIGHT} is 0 for every client: there is no mean"
        if fault is not None:
            checked[index] = Message(Error(UNKNOWN, f"refused: {fault}"), reply_to=messages[index])
    return checked


@dataclass(frozen=True)
class _Outline:
    """What a reply holds, looked at once: names of array records and metrics, arrays, and the first weight."""

    names: tuple[str, ...]
    arrays: dict[str, ArrayRecord]
    weight: Any


def _outline(content: RecordDict) -> _Outline:
    names, arrays, weights = [], {}, []
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            arrays[name] = record
            names.append(f"arrays {name}")
        elif isinstance(record, MetricRecord):
            names += [f"metric {name}.{key}{'[]' if isinstance(value, list) else ''}" for key, value in record.items()]
            weights += [record[WEIGHT]] if WEIGHT in record else []
    return _Outline(tuple(sorted(names)), arrays, weights[0] if weights else None)


def _weight_fault(weight: Any) -> str | None:
    counts = isinstance(weight, (int, float)) and math.isfinite(weight) and weight >= 0
    return None if weight is None or counts else f"{WEIGHT} = {weight} is not a count"


def _array_fault(sent: Mapping[str, ArrayRecord], got: Mapping[str, ArrayRecord]) -> str | None:
    for name, record in got.items():
        expected = sent.get(name)
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
        view = array_view(array)
        values = array.numpy() if view is None else view
    except Exception as error:  # whatever the other side's bytes make the reader raise
        return f"array '{key}' has bytes that are no array: {error}"
    bad = non_finite(values)
    return f"array '{key}' has {bad} values that are NaN or infinite" if bad else None


class CheckedGrid(GridDecorator):
    """A Grid decorator that checks replies: `FedAvg().start(grid=CheckedGrid(grid), ...)` on Flower's own grids.

    Replies that are pulled pass unchecked, since what was sent is not known then.

    Args:
        grid: the grid that carries the messages.
    """

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send, wait, and check what came; replies are matched to messages by id."""
        sent = list(messages)
        replies = list(self._grid.send_and_receive(sent, timeout=timeout))
        by_id = {message.metadata.message_id: message for message in sent}
        matched = [reply for reply in replies if reply.metadata.reply_to_message_id in by_id]
        return check_replies([by_id[reply.metadata.reply_to_message_id] for reply in matched], matched)
