"""From the sums of a round's groups to a strategy's replies: one a group, and an error for who is in none."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from flwr.app import ConfigRecord, Error, Message, RecordDict

from fedmeta.errors import ConfigurationError, DataError
from fedmeta.privacy.distributed.encoder import TooFewSurvivors
from fedmeta.privacy.protected_vector import GroupMean
from fedmeta.privacy.secagg import Aborted
from fedmeta.wire import (
    ARRAYS,
    CLIPPED_SHARE,
    CONFIG,
    GROUP,
    IDLE,
    METRICS,
    WEIGHT,
    metric_record,
    read_vector,
    vector_record,
)
from strategies.checking import UNKNOWN
from strategies.message_ids import give_id
from strategies.secagg_encoding import Encoding
from strategies.secagg_round import Group


@dataclass(frozen=True)
class Opened:
    """A group's sum as it is known to the server.

    Attributes:
        group: whose.
        survivors: nodes in it; none where there is no sum.
        mean: of them; None where there is no sum.
    """

    group: Group
    survivors: tuple[int, ...] = ()
    mean: GroupMean | None = None


def open_sums(groups: Sequence[Group], encoding: Encoding) -> list[Opened]:
    """What the groups' sums say, once the exchanges are over."""
    found = []
    for group in groups:
        try:
            found.append(_open(group, encoding))
        except (Aborted, DataError, TooFewSurvivors) as error:
            group.end(str(error))
            found.append(Opened(group))
    return found


def _open(group: Group, encoding: Encoding) -> Opened:
    if group.ended is not None:
        return Opened(group)
    result = group.session.result
    facts, count = group.facts[result.survivors[0]], len(result.survivors)
    layout = encoding.layout(model_size(group.first), facts.weight_bound)
    total = encoding.decode(group.encoder, result.total, count)
    return Opened(group, result.survivors, layout.unpack(total, count, facts.metrics))


def group_replies(opened: Sequence[Opened]) -> list[Message]:
    """The replies to the train messages of all groups."""
    names = sorted({name for one in opened if one.mean is not None for name in one.mean.metrics})
    replies = []
    for one in opened:
        if one.group.ended is None and one.mean is not None:
            replies.append(_reply(one, one.mean, names))
        replies += _errors(one)
    return replies


def _reply(one: Opened, mean: GroupMean, metric_names: Sequence[str]) -> Message:
    """The mean of a group, as a reply to the message of its first member."""
    messages, facts = one.group.messages, one.group.facts
    first = messages[one.survivors[0]]
    told = dict(facts[one.survivors[0]].told)
    update, name = torch.from_numpy(mean.update), model_name(first)
    if told.get("update-form") == "model":
        update = read_vector(first.content.array_records[name], len(update)).to(update.dtype) + update
    ids = {node: messages[node].metadata.message_id for node in one.survivors}
    config: dict[str, Any] = {**told, GROUP: list(ids.values())}
    if mean.clipped is not None:
        config[CLIPPED_SHARE] = mean.clipped
    idle = {ids[node]: facts[node].idle for node in one.survivors if facts[node].idle is not None}
    if idle:
        config[IDLE] = json.dumps(idle)
    # Metric keys must be equal in all replies; a group of which nobody could tell a metric has no number for it.
    metrics = {key: mean.metrics.get(key, float("nan")) for key in metric_names}
    content = RecordDict(
        {
            name: vector_record(update.to(torch.float32)),
            METRICS: metric_record({**metrics, WEIGHT: mean.weight}),
            CONFIG: ConfigRecord(config),
        }
    )
    reply = Message(content, reply_to=first)
    give_id(reply)
    return reply


def _errors(one: Opened) -> list[Message]:
    in_sum = set(one.survivors) if one.group.ended is None else set()
    without = f"its group has no sum: {one.group.ended}"
    return [
        error_reply(message, f"secure aggregation: {one.group.failed.get(node, without)}")
        for node, message in one.group.messages.items()
        if node not in in_sum
    ]


def error_reply(message: Message, reason: str) -> Message:
    """A reply that says why a client is in no sum."""
    reply = Message(Error(UNKNOWN, reason), reply_to=message)
    give_id(reply)
    return reply


def model_name(message: Message) -> str:
    """The record of the model in a train message: the only one, or that which our strategy calls so."""
    records = message.content.array_records
    return ARRAYS if len(records) > 1 and ARRAYS in records else next(iter(records), ARRAYS)


def model_size(message: Message) -> int:
    """D of the flat vector that a train message holds.

    Raises:
        ConfigurationError: a model that is not one flat vector.
    """
    record = message.content.array_records.get(model_name(message))
    shapes = [] if record is None else [tuple(array.shape) for array in record.values()]
    if len(shapes) != 1 or len(shapes[0]) != 1:
        raise ConfigurationError(
            f"secure aggregation masks one flat vector, and the train message holds arrays of shapes {shapes}: send "
            "what fedmeta.wire.vector_record makes"
        )
    return int(shapes[0][0])
