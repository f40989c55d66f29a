"""Replies that would poison or end a strategy become errors: Flower's FedAvg averages NaN, for one."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from fedmeta.wire import WEIGHT

UNKNOWN = 0
"""Flower's error code for what has no code of its own."""


def check_replies(messages: Sequence[Message], replies: Sequence[Message]) -> list[Message]:
    """Check replies to train messages; others pass.

    Refused are: arrays under a record's name that was sent, with other keys, shapes or dtypes than were sent; values
    that are NaN or infinite; a negative or non-finite weight; metric keys other than most replies have. Records that
    were not sent are the strategy's own affair. Weights that are all zero pass: a strategy must decide what they mean.

    Args:
        messages: what was sent.
        replies: one each, in the same order.

    Returns:
        The replies, refused ones as error replies with the reason.
    """
    usual = _usual_metrics(replies)
    checked = []
    for message, reply in zip(messages, replies, strict=True):
        fault = None
        if reply.has_content() and message.metadata.message_type.split(".")[0] == "train":
            fault = _array_fault(message.content, reply.content) or _metric_fault(reply.content, usual)
        checked.append(reply if fault is None else Message(Error(UNKNOWN, f"refused: {fault}"), reply_to=message))
    return checked


def _usual_metrics(replies: Iterable[Message]) -> frozenset[str] | None:
    counts = Counter(_metric_keys(reply.content) for reply in replies if reply.has_content())
    return counts.most_common(1)[0][0] if counts else None


def _metric_keys(content: RecordDict) -> frozenset[str]:
    return frozenset(f"{name}.{key}" for name, record in content.metric_records.items() for key in record)


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
    values = array.numpy()
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        return f"array '{key}' has {int((~np.isfinite(values)).sum())} values that are NaN or infinite"
    return None


def _metric_fault(content: RecordDict, usual: frozenset[str] | None) -> str | None:
    if usual is not None and _metric_keys(content) != usual:
        return f"metrics {sorted(_metric_keys(content))} where most clients send {sorted(usual)}"
    for record in content.metric_records.values():
        weight = record.get(WEIGHT)
        if isinstance(weight, (int, float)) and not (math.isfinite(weight) and weight >= 0):
            return f"{WEIGHT} = {weight} is not a count"
    return None


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

    def set_run(self, run):  # type: ignore[no-untyped-def]
        """Passed on."""
        self._grid.set_run(run)

    @property
    def run(self):  # type: ignore[no-untyped-def]
        """Passed on."""
        return self._grid.run

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):  # type: ignore[no-untyped-def]
        """Passed on."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Passed on."""
        return self._grid.get_node_ids()

    def get_nodes(self):  # type: ignore[no-untyped-def]
        """Passed on."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Passed on."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Passed on; unchecked, since what was sent is not known here."""
        return self._grid.pull_messages(message_ids)
