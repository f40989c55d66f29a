"""Replies that would poison or end a strategy become errors: Flower's FedAvg averages NaN, for one."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord

from fedmeta.wire import WEIGHT, array_view, non_finite
from strategies.decorator import GridDecorator

UNKNOWN = 0
"""Flower's error code for what has no code of its own."""


@dataclass(frozen=True)
class Outline:
    """What a reply holds, looked at once, where it was made if possible.

    Attributes:
        names: of its array records and metrics, sorted.
        weight: the first of its weights; None where it has none.
        fault: why it is refused whatever others send; None for a sound one.
    """

    names: tuple[str, ...]
    weight: Any
    fault: str | None


def check_replies(messages: Sequence[Message], replies: Sequence[Message]) -> list[Message]:
    """Check replies to train and evaluate messages; others pass.

    Refused are: arrays under a record's name that was sent, with other keys or shapes than were sent, or of another
    dtype unless both are of real numbers (FedAvg makes floats of a client's counters, and other strategies float64 of
    float32, which clients turn back); values that are NaN or infinite; records or metric keys other than most replies
    have; a negative or non-finite weight; and where all weights are zero every reply, since no mean can be taken.
    Records that were not sent are the strategy's own affair.

    Args:
        messages: what was sent.
        replies: one each, in the same order.

    Returns:
        The replies, refused ones as error replies with the reason.
    """
    return refuse(messages, replies, [outline(*pair) for pair in zip(messages, replies, strict=True)])


def outline(message: Message, reply: Message) -> Outline | None:
    """Look at a reply by itself; None for an error, and for a reply to what is neither train nor evaluate."""
    if not reply.has_content() or message.metadata.message_type.partition(".")[0] not in ("train", "evaluate"):
        return None
    sent, names, weights, fault = message.content, [], [], None
    for name, record in reply.content.items():
        if isinstance(record, ArrayRecord):
            names.append(f"arrays {name}")
            fault = fault or _array_fault(sent.get(name), record)
        elif isinstance(record, MetricRecord):
            names += [f"metric {name}.{key}{'[]' if isinstance(value, list) else ''}" for key, value in record.items()]
            weights += [record[WEIGHT]] if WEIGHT in record else []
    weight = weights[0] if weights else None
    return Outline(tuple(sorted(names)), weight, fault or _weight_fault(weight))


def refuse(
    messages: Sequence[Message], replies: Sequence[Message], outlines: Sequence[Outline | None]
) -> list[Message]:
    """Replies, with errors for those that have a fault or differ from most others: see `check_replies`."""
    judged = {index: each for index, each in enumerate(outlines) if each is not None}
    usual = Counter(each.names for each in judged.values()).most_common(1)[0][0] if judged else ()
    weightless = bool(judged) and all(each.weight == 0 for each in judged.values())
    checked = list(replies)
    for index, each in judged.items():
        fault = each.fault
        if fault is None and each.names != usual:
            fault = f"metrics and arrays {list(each.names)} where most clients send {list(usual)}"
        if fault is None and weightless:
            fault = f"{WEIGHT} is 0 for every client: there is no mean"
        if fault is not None:
            checked[index] = Message(Error(UNKNOWN, f"refused: {fault}"), reply_to=messages[index])
    return checked


def _weight_fault(weight: Any) -> str | None:
    counts = isinstance(weight, (int, float)) and math.isfinite(weight) and weight >= 0
    return None if weight is None or counts else f"{WEIGHT} = {weight} is not a count"


def _array_fault(sent: object, got: ArrayRecord) -> str | None:
    expected = sent if isinstance(sent, ArrayRecord) else None
    if expected is not None and set(got) != set(expected):
        return f"arrays {sorted(got)} where {sorted(expected)} were sent"
    for key, array in got.items():
        fault = _one_array_fault(key, array, expected[key] if expected is not None else None)
        if fault:
            return fault
    return None


def _one_array_fault(key: str, array: Array, expected: Array | None) -> str | None:
    if expected is not None and not (
        tuple(array.shape) == tuple(expected.shape)
        and (array.dtype == expected.dtype or (_is_real(array.dtype) and _is_real(expected.dtype)))
    ):
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


def _is_real(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:  # a name of the other side's making
        return False


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
