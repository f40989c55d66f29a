"""Library types as Flower records and back: the only module of the library that knows Flower.

A model or an update is ONE flat float32 array, since Flower ships every array as an object of its own.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedmeta import npy

if TYPE_CHECKING:  # torch is loaded where a tensor is made: engines carry other people's apps, which may need none
    from torch import Tensor

FLAT = "flat"
ARRAYS, METRICS, CONFIG = "arrays", "metrics", "config"
NUMPY = "numpy.ndarray"
"""How Flower names the format of an Array's bytes: a .npy file."""
LAST_UPDATE, CLEAN = "last-update", "clean"
"""Records beside the model: what the last round did to it, for attackers; the model of a run without attack."""
MALICIOUS, ATTACKERS, IDLE = "malicious", "attackers", "attack-idle"
"""Scalars of a staged attack: who is malicious, who of them attacks in this round, and why one could not."""

GROUP = "group"
"""Scalar of a reply that speaks for a group of clients: the ids of the messages to those in its mean."""

CLIPPED_SHARE = "clipped-share"
"""Scalar of a group's reply: the share of its clients' entries that were clipped to the bound of the encoder."""

PROBABILITIES, CONFIGURATION = "configuration-probabilities", "configuration"
"""Scalars beside the model: what a client draws its configuration from, and the one that is settled on where none is
drawn."""
TROUBLE = "no-baseline."
"""Before a baseline's name: why a client could not compute it."""

CONFIGURATION_LOSS = "configuration-loss"
"""The metric of a client that drew: what its trained model loses on fresh tasks."""

KINDS = {"array": ArrayRecord, "metric": MetricRecord, "config": ConfigRecord}

TINY_SQUARE = 1e-24
"""Sums of squares above it have lost nothing to the lower end of float32."""

WEIGHT = "num-examples"
"""The metric that Flower's strategies weight by; ours holds the number of tasks here."""


class MalformedRecord(ValueError):
    """A record from the other side that does not hold what the contract says; the text names what."""


def vector_record(vector: "Tensor") -> ArrayRecord:
    """A flat vector `[D]` as an ArrayRecord of one float32 array."""
    values = np.ascontiguousarray(vector.detach().cpu().numpy(), dtype=np.float32)
    record = ArrayRecord()  # filled below: its constructor takes four times as long to find out what it was given
    # As Flower's own encoder writes it, in one copy instead of three.
    record[FLAT] = Array("float32", tuple(values.shape), NUMPY, npy.encode(values))
    return record


def read_vector(record: ArrayRecord, size: int) -> "Tensor":
    """The flat vector `[size]` of a record; the caller owns it.

    Raises:
        MalformedRecord: other keys, another dtype, another shape, or a value that is not finite.
    """
    import torch

    values = flat_values(record, size)
    refuse_non_finite(values)
    return torch.from_numpy(np.array(values))


def read_row(record: ArrayRecord, row: "Tensor") -> float:
    """Read the flat vector of a record to a float32 `row` `[D]`; returns its Euclidean norm.

    The norm is that of what is still warm in the cache, and shows on the way whether all values are finite.

    Raises:
        MalformedRecord: as `read_vector`.
    """
    import torch

    values = flat_values(record, len(row))
    row.numpy()[:] = values
    square = float(torch.dot(row, row))
    if TINY_SQUARE < square < math.inf:
        return math.sqrt(square)
    refuse_non_finite(values)
    return float(row.to(torch.float64).norm())  # squares outside the range of float32


def flat_values(record: ArrayRecord, size: int) -> npt.NDArray[np.float32]:
    """The values of a record that holds one float32 array `[size]`, where they lie; finite or not.

    Raises:
        MalformedRecord: other keys, another dtype, or another shape, announced or within.
    """
    if list(record) != [FLAT]:
        raise MalformedRecord(f"arrays {sorted(record)} where one named '{FLAT}' was expected")
    array = record[FLAT]
    if array.dtype != "float32" or tuple(array.shape) != (size,):
        raise MalformedRecord(f"an array of {array.dtype} {tuple(array.shape)} where float32 ({size},) was expected")
    try:
        view = array_view(array)
        values = array.numpy() if view is None else view
    except Exception as error:  # whatever the other side's bytes make the reader raise
        raise MalformedRecord(f"bytes that are no array: {error}") from error
    if values.dtype != np.float32 or values.shape != (size,):
        raise MalformedRecord(f"data of {values.dtype} {values.shape} in an array that announces float32 ({size},)")
    return values


def refuse_non_finite(values: npt.NDArray[np.float32]) -> None:
    """Raise MalformedRecord where a value is NaN or infinite."""
    bad = non_finite(values)
    if bad:
        raise MalformedRecord(f"{bad} values of {values.size} are NaN or infinite")


def non_finite(values: npt.NDArray[Any]) -> int:
    """How many values are NaN or infinite; 0 for integers."""
    if values.dtype.kind not in "fc":
        return 0
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum()):  # a NaN or infinity would show; cheaper than looking at each
            return 0
    return int((~np.isfinite(values)).sum())


def array_view(array: Array) -> npt.NDArray[Any] | None:
    """An Array's values where they lie, read-only; None where they are not in the plain format that Flower writes.

    An Array whose bytes lie elsewhere than in `data` names the place in `buffer`.
    """
    if array.stype != NUMPY:
        return None
    return npy.view(getattr(array, "buffer", None) or memoryview(array.data))


def only(content: RecordDict, kind: str) -> Any:
    """The single ArrayRecord, MetricRecord or ConfigRecord of a message: `kind` is `array`, `metric` or `config`.

    Raises:
        MalformedRecord: none, or more than one.
    """
    # Flower's own views by kind write every record into a new dictionary, which took half of a small client's round.
    # Nor is isinstance asked, which takes as long for an abstract base class.
    found = [record for record in content.values() if KINDS[kind] in type(record).__mro__]
    if len(found) != 1:
        raise MalformedRecord(f"{len(found)} {kind} records where one was expected")
    return found[0]


def config_record(values: Mapping[str, Any]) -> ConfigRecord:
    """A ConfigRecord of scalars, texts and lists of them."""
    return ConfigRecord(dict(values))


def metric_record(values: Mapping[str, Any]) -> MetricRecord:
    """A MetricRecord of numbers and lists of numbers."""
    return MetricRecord(dict(values))
