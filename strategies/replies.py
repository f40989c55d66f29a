"""Sorting a round's replies: what is usable, what failed, what is refused, each with its reason."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import Message
from torch import Tensor

from fedmeta.wire import CLIPPED_SHARE, GROUP, IDLE, WEIGHT, MalformedRecord, only, read_row
from strategies.partial_sums import NORM, SUMMED, read_sum
from strategies.row_store import RowStore


@dataclass(frozen=True)
class Update:
    """A valid reply of one client, or under secure aggregation of one group of clients.

    Attributes:
        client: its id; of a group that of the first client in it.
        delta: `[D]`, of a group the mean; None where it went into a sum on the client's actor.
        norm: Euclidean, of the update.
        tasks: seen in training, by all of a group.
        metrics: its others, of a group the means.
        idle: malicious client -> why it could not attack, as it says of itself for the experiment's sake.
        carried: int64 `[D]`, the sum that this reply brings along, or None (see `strategies.partial_sums`).
        group: ids of the clients whose mean it is; empty for the reply of one client.
        clipped: share of a group's entries that were clipped to the bound of secure aggregation; None where not told.
    """

    client: int
    delta: Tensor | None
    norm: float
    tasks: float
    metrics: dict[str, float]
    carried: Tensor | None = None
    idle: Mapping[int, str] = field(default_factory=dict)
    group: tuple[int, ...] = ()
    clipped: float | None = None

    @property
    def clients(self) -> tuple[int, ...]:
        """The ids of those it speaks for."""
        return self.group or (self.client,)


@dataclass(frozen=True)
class Sorted:
    """A round's replies, each list in the order of client ids.

    Attributes:
        updates: usable ones.
        matrix: `[n, D]`, the updates that came whole.
        failed: client id -> why there is no reply: an exception on the client, a lost node, a time limit.
        refused: client id -> why a reply was not accepted.
    """

    updates: list[Update]
    matrix: Tensor
    failed: dict[int, str]
    refused: dict[int, str]

    @property
    def answered(self) -> int:
        """How many clients are in the updates."""
        return sum(len(update.clients) for update in self.updates)


def sort_replies(
    found: Mapping[int, Message | None],
    size: int,
    spec_hash: str,
    *,
    sums: bool = False,
    groups: Mapping[str, int] | None = None,
    store: RowStore | None = None,
) -> Sorted:
    """Sort a round's replies to train messages.

    Args:
        found: client id -> its reply, or None where there is none.
        size: D of the flat vector.
        spec_hash: of the server's `ParamSpec`; a reply made for another one is refused.
        sums: whether sums of updates were asked for; else a reply whose update would be in one is refused.
        groups: under secure aggregation, where one reply speaks for many: message id -> client. None elsewhere, so
            that no client can claim to be a group.
        store: where the matrix lies; None for memory of its own.
    """
    updates: list[Update] = []
    failed: dict[int, str] = {}
    refused: dict[int, str] = {}
    # Each update is read to its row: it is copied once.
    summed = {client for client, reply in found.items() if sums and reply is not None and _is_summed(reply)}
    rows = (store or RowStore()).take(len(found) - len(summed), size)
    whole = 0
    spoken_for = {member for reply in found.values() for member in _group(reply, groups)}
    for client, reply in sorted(found.items()):
        if reply is None and client in spoken_for:
            continue
        if reply is None:
            failed[client] = "no reply within the time limit"
        elif reply.has_error():
            failed[client] = (reply.error.reason or f"error code {reply.error.code}").strip()
        else:
            try:
                row = None if client in summed else rows[whole]
                update = _read_update(client, reply, size, row, spec_hash)
                updates.append(_of_group(update, reply, groups))
                whole += updates[-1].delta is not None
            except MalformedRecord as error:
                refused[client] = str(error)
    return Sorted(updates, rows[:whole], failed, refused)


def _group(reply: Message | None, groups: Mapping[str, int] | None) -> tuple[int, ...]:
    """The clients that a reply speaks for, ascending; none for the reply of one."""
    if groups is None or reply is None or not reply.has_content():
        return ()
    named: Any = next((record[GROUP] for record in reply.content.config_records.values() if GROUP in record), ())
    return tuple(sorted(groups[message] for message in named))


def _of_group(update: Update, reply: Message, groups: Mapping[str, int] | None) -> Update:
    """The update with what its reply says of the group that it is the mean of; unchanged where it is one client's."""
    members = _group(reply, groups)
    if not members or groups is None:
        return update
    config = only(reply.content, "config")
    clipped = config.get(CLIPPED_SHARE)
    idle = {groups[message]: str(why) for message, why in json.loads(str(config.get(IDLE, "{}"))).items()}
    return replace(update, group=members, clipped=None if clipped is None else float(clipped), idle=idle)


def _is_summed(reply: Message) -> bool:
    """Whether a reply says that its update went into a sum."""
    if not reply.has_content():
        return False
    return any(record.get("update-form") == SUMMED for record in reply.content.config_records.values())


def _read_update(client: int, reply: Message, size: int, row: Tensor | None, spec_hash: str) -> Update:
    """A valid reply; its update is read to `row`, or is in a sum where there is none."""
    config = only(reply.content, "config")
    if config.get("spec-hash") != spec_hash:
        raise MalformedRecord(f"made for a model of spec {str(config.get('spec-hash'))[:12]}, not {spec_hash[:12]}")
    if row is not None and config.get("update-form") != "delta":
        raise MalformedRecord(f"an update of form '{config.get('update-form')}' where a delta was asked for")
    metrics = {
        key: float(value) for key, value in only(reply.content, "metric").items() if isinstance(value, (int, float))
    }
    tasks = metrics.pop(WEIGHT, math.nan)
    if not (math.isfinite(tasks) and tasks >= 0):
        raise MalformedRecord(f"{WEIGHT} = {tasks} is not a count of tasks")
    idle = {} if config.get(IDLE) is None else {client: str(config[IDLE])}
    if row is None:
        if NORM not in metrics:
            raise MalformedRecord(f"an update in a sum without its {NORM}")
        return Update(client, None, metrics[NORM], tasks, metrics, read_sum(reply.content, size), idle)
    return Update(client, row, read_row(only(reply.content, "array"), row), tasks, metrics, idle=idle)
