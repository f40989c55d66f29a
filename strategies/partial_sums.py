"""Sums of updates taken where clients run, for a plain mean, which needs no more than the sum.

A weighted update is rounded to multiples of 2^-BITS, and integers add up to the same in any order: the mean does not
depend on which clients share an actor, nor on whether actors or the server added them. An update too large for that
travels whole and is added in float64, in the order of client ids.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Array, ArrayRecord, Message, RecordDict
from torch import Tensor

from fedmeta.wire import ARRAYS, FLAT, WEIGHT, MalformedRecord, flat_values, only

BITS = 40
"""An update is rounded to multiples of 2^-40, about 1e-12."""

LIMIT = 2.0**6
"""The largest weighted entry that is added as an integer: 2^16 clients of it stay below 2^63."""

SURELY_BELOW = LIMIT / 2
"""A norm as large as this, whatever it lost to rounding, is of entries below `LIMIT`."""
VANISHED = 1e-18
"""Entries below it may be missing in a norm in float32, since their squares are none of its numbers."""

REDUCE = "reduce"
"""Key of the request in a train message: `uniform` or `tasks`, the weighting; absent for whole updates."""

SUMMED = "summed"
"""The `update-form` of a reply whose update went into a sum; one of an actor's replies carries that sum, int64."""

NORM = "client-update-norm"


TOGETHER = 8
"""Updates that are added at once, and that an actor holds: two actors that share a cache take three quarters of the
time that one after the other takes."""

BLOCK = 1 << 15
"""Entries at a time: what a core's own cache holds, which is three times as fast as whole arrays."""

SHIFT = 1.5 * 2.0 ** (52 - BITS)
"""A float64 within 2^(51 - BITS) of it, which is more than `LIMIT`, is a multiple of 2^-BITS."""

SHIFT_BITS = int(np.float64(SHIFT).view(np.int64))
"""The bits of SHIFT as an integer: those of SHIFT + n 2^-BITS are n more."""


Vector = Tensor | npt.NDArray[np.float32]


def can_add(update: Vector, weight: float, norm: float = math.inf) -> bool:
    """Whether a weighted update, float32 `[D]`, may be added as integers: all entries are numbers, up to `LIMIT`.

    Args:
        norm: Euclidean, of the update, where it is known: no entry is above it.
    """
    if (norm + VANISHED) * weight <= SURELY_BELOW:
        return True
    values = np.asarray(update)
    return max(float(values.max(initial=0)), -float(values.min(initial=0))) * weight <= LIMIT


def add(total: Tensor, updates: Sequence[Vector], weights: Sequence[float]) -> None:
    """Add weighted updates, each float32 `[D]`, to an int64 sum `[D]`, in multiples of 2^-BITS; see `can_add`.

    The sum is twice as large as an update; for several together it is read and written once.

    >>> total = torch.zeros(2, dtype=torch.int64)
    >>> add(total, [torch.tensor([0.5, -1.0]), torch.tensor([0.0, 2.0])], [2.0, 1.0])
    >>> total.tolist() == [2**40, 0]
    True
    """
    rows, sums = [np.asarray(update) for update in updates], total.numpy()
    shifted = np.empty(min(BLOCK, len(sums)))
    for start in range(0, len(sums), BLOCK):
        counts = sums[start : start + BLOCK]
        floats = shifted[: len(counts)]
        for row, weight in zip(rows, weights, strict=True):
            np.copyto(floats, row[start : start + BLOCK])
            if weight != 1:
                floats *= weight
            # The sum is rounded as rint would round, and read as an integer: a third of the time of converting one.
            floats += SHIFT
            counts += floats.view(np.int64)
        counts -= np.int64((len(rows) * SHIFT_BITS + 2**63) % 2**64 - 2**63)  # what ran over runs back


def mean(updates: Sequence[Tensor | None], sums: Sequence[Tensor], weights: Tensor) -> Tensor:
    """The weighted mean `[D]`, float32.

    Args:
        updates: one each client in the order of ids; None where it went into a sum.
        sums: int64 `[D]`, from actors.
        weights: `[n]` of all clients; their sum is above 0.
    """
    size = next(len(vector) for vector in (*sums, *updates) if vector is not None)
    total, rest = torch.zeros(size, dtype=torch.int64), torch.zeros(size, dtype=torch.float64)
    for part in sums:
        total += part
    for update, weight in zip(updates, weights.tolist(), strict=True):
        if update is not None and can_add(update, weight):
            add(total, [update], [weight])
        elif update is not None:
            rest.add_(update.to(torch.float64), alpha=weight)
    return ((total.to(torch.float64) * 2.0**-BITS + rest) / float(weights.sum())).to(torch.float32)


def add_up(messages: Sequence[Message], replies: Iterable[Message]) -> list[Message]:
    """Replace the updates of one cohort's replies by their sum, where the messages ask for it.

    What is no valid update of ours stays as it is: the strategy refuses it by name. Replies keep metrics and weights,
    and tell the norm of their update, so that nothing but the updates themselves is lost. Replies that are made as they
    are asked for are never there all at once with their updates.
    """
    added: list[Message] = []
    sums: dict[tuple[str, int], _Sum] = {}
    for i, (message, reply) in enumerate(zip(messages, replies, strict=True)):
        added.append(reply)
        found = _addend(message, reply)
        if found is None:
            continue
        key, update, weight = found
        with np.errstate(over="ignore"):
            norm = float(np.linalg.norm(update))
        if can_add(update, weight, norm):
            if key not in sums:
                sums[key] = _Sum(i, torch.zeros(len(update), dtype=torch.int64))
            sums[key].take(update, weight)
            _strip(reply.content, norm)
    for each in sums.values():
        added[each.carrier].content[ARRAYS] = ArrayRecord({FLAT: Array(each.settled().numpy())})
    return added


@dataclass
class _Sum:
    """A sum that grows: the reply that will carry it, and the updates that wait until there are enough to add."""

    carrier: int
    total: Tensor
    waiting: list[Vector] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def take(self, update: Vector, weight: float) -> None:
        self.waiting.append(update)
        self.weights.append(weight)
        if len(self.waiting) == TOGETHER:
            self.settled()

    def settled(self) -> Tensor:
        """The sum of all that was taken."""
        add(self.total, self.waiting, self.weights)
        self.waiting, self.weights = [], []
        return self.total


def _addend(message: Message, reply: Message) -> tuple[tuple[str, int], npt.NDArray[np.float32], float] | None:
    """What may be added together, the update, and its weight; None where this reply stays whole."""
    if not reply.has_content():
        return None
    try:
        weighting = only(message.content, "config").get(REDUCE)
        config, metrics = only(reply.content, "config"), only(reply.content, "metric")
        if weighting not in ("uniform", "tasks") or config.get("update-form") != "delta":
            return None
        size = int(only(message.content, "array")[FLAT].shape[0])
        update = flat_values(only(reply.content, "array"), size)
        tasks = float(metrics[WEIGHT])
    except (MalformedRecord, LookupError, TypeError, ValueError):
        return None
    if not (np.isfinite(tasks) and tasks >= 0):  # refused later, and must not carry the sum of others
        return None
    return (str(config.get("spec-hash")), len(update)), update, tasks if weighting == "tasks" else 1.0


def _strip(content: RecordDict, norm: float) -> None:
    for name in [name for name, record in content.items() if isinstance(record, ArrayRecord)]:
        del content[name]
    only(content, "metric")[NORM] = norm
    only(content, "config")["update-form"] = SUMMED


def read_sum(content: RecordDict, size: int) -> Tensor | None:
    """The sum that a reply carries, int64 `[size]`; None where it carries none.

    Raises:
        MalformedRecord: an array that is no such sum.
    """
    if not any(isinstance(record, ArrayRecord) for record in content.values()):
        return None
    record = only(content, "array")
    array = record.get(FLAT)
    if array is None or array.dtype != "int64" or tuple(array.shape) != (size,):
        raise MalformedRecord(f"a sum that is not one int64 array of ({size},)")
    return torch.from_numpy(np.array(array.numpy()))
