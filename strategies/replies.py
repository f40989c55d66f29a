"""Sorting a round's replies: what is usable, what failed, what is refused, each with its reason."""

import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import Message
from torch import Tensor

from fedmeta.wire import IDLE, WEIGHT, MalformedRecord, only, read_row
from strategies.partial_sums import NORM, SUMMED, read_sum


@dataclass(frozen=True)
class Update:
    """A valid reply of one client.

    Attributes:
        client: its id.
        delta: `[D]`; None where it went into a sum on the client's actor.
        norm: Euclidean, of the update.
        tasks: seen in training.
        metrics: its others.
        idle: why a malicious client could not attack, as it says of itself for the experiment's sake, or None.
        carried: int64 `[D]`, the sum that this reply brings along, or None (see `strategies.partial_sums`).
    """

    client: int
    delta: Tensor | None
    norm: float
    tasks: float
    metrics: dict[str, float]
    carried: Tensor | None = None
    idle: str | None = None


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


class RowStore:
    """Memory for update matrices, used again round after round while nobody holds on to a row of the last one.

    A new large array costs as much in page faults as copying the updates into it.
    """

    def __init__(self) -> None:
        self._values: Any = np.empty((0, 0), np.float32)

    def take(self, n: int, size: int) -> Tensor:
        """A float32 matrix `[n, size]` of any values."""
        # Views, numpy's and torch's, hold a reference to the array itself; ours and that of this call are two.
        free = sys.getrefcount(self._values) == 2
        if not free or self._values.shape[1] != size or len(self._values) < n:
            self._values = np.empty((n, size), np.float32)  # NumPy asks for large pages, which torch does not
        return torch.from_numpy(self._values[:n])


def sort_replies(
    found: Mapping[int, Message | None], size: int, spec_hash: str, *, sums: bool = False, store: RowStore | None = None
) -> Sorted:
    """Sort a round's replies to train messages.

    Args:
        found: client id -> its reply, or None where there is none.
        size: D of the flat vector.
        spec_hash: of the server's `ParamSpec`; a reply made for another one is refused.
        sums: whether sums of updates were asked for; else a reply whose update would be in one is refused.
        store: where the matrix lies; None for memory of its own.
    """
    updates: list[Update] = []
    failed: dict[int, str] = {}
    refused: dict[int, str] = {}
    # Each update is read to its row: it is copied once.
    summed = {client for client, reply in found.items() if sums and reply is not None and _is_summed(reply)}
    rows = (store or RowStore()).take(len(found) - len(summed), size)
    whole = 0
    for client, reply in sorted(found.items()):
        if reply is None:
            failed[client] = "no reply within the time limit"
        elif reply.has_error():
            failed[client] = (reply.error.reason or f"error code {reply.error.code}").strip()
        else:
            try:
                row = None if client in summed else rows[whole]
                updates.append(_read_update(client, reply, size, row, spec_hash))
                whole += updates[-1].delta is not None
            except MalformedRecord as error:
                refused[client] = str(error)
    return Sorted(updates, rows[:whole], failed, refused)


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
    idle = None if config.get(IDLE) is None else str(config[IDLE])
    if row is None:
        if NORM not in metrics:
            raise MalformedRecord(f"an update in a sum without its {NORM}")
        return Update(client, None, metrics[NORM], tasks, metrics, read_sum(reply.content, size), idle)
    return Update(client, row, read_row(only(reply.content, "array"), row), tasks, metrics, idle=idle)


def group_reasons(reasons: Mapping[int, str]) -> list[str]:
    """One line for alike failures, naming how many and which clients.

    >>> group_reasons({3: "ValueError: a", 5: "ValueError: a", 7: "KeyError: b"})
    ['2 clients (3, 5): ValueError: a', '1 client (7): KeyError: b']
    """
    lines = []
    for reason, count in Counter(reasons.values()).most_common():
        clients = [str(client) for client, why in reasons.items() if why == reason]
        shown = ", ".join(clients[:5]) + (", ..." if count > 5 else "")
        lines.append(f"{count} client{'s' if count > 1 else ''} ({shown}): {reason}")
    return lines
