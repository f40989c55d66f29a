"""Library types as Flower records and back: the only module of the library that knows Flower.

A model or an update is ONE flat float32 array, since Flower ships every array as an object of its own.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

FLAT = "flat"
ARRAYS, METRICS, CONFIG = "arrays", "metrics", "config"
LAST_UPDATE, CLEAN = "last-update", "clean"
"""Records beside the model: what the last round did to it, for attackers; the model of a run without attack."""

WEIGHT = "num-examples"
"""The metric that Flower's strategies weight by; ours holds the number of tasks here."""


class MalformedRecord(ValueError):
    """A record from the other side that does not hold what the contract says; the text names what."""


def vector_record(vector: Tensor) -> ArrayRecord:
    """A flat vector `[D]` as an ArrayRecord of one float32 array."""
    return ArrayRecord({FLAT: Array(np.ascontiguousarray(vector.detach().cpu().numpy(), dtype=np.float32))})


def read_vector(record: ArrayRecord, size: int) -> Tensor:
    """The flat vector `[size]` of a record; the caller owns it.

    Raises:
        MalformedRecord: other keys, another dtype, another shape, or a value that is not finite.
    """
    if list(record) != [FLAT]:
        raise MalformedRecord(f"arrays {sorted(record)} where one named '{FLAT}' was expected")
    array = record[FLAT]
    if array.dtype != "float32" or tuple(array.shape) != (size,):
        raise MalformedRecord(f"an array of {array.dtype} {tuple(array.shape)} where float32 ({size},) was expected")
    try:
        values = array.numpy()
    except Exception as error:  # whatever the other side's bytes make the reader raise
        raise MalformedRecord(f"bytes that are no array: {error}") from error
    if values.dtype != np.float32 or values.shape != (size,):
        raise MalformedRecord(f"data of {values.dtype} {values.shape} in an array that announces float32 ({size},)")
    if not np.isfinite(values).all():
        raise MalformedRecord(f"{int((~np.isfinite(values)).sum())} values of {size} are NaN or infinite")
    return torch.from_numpy(np.array(values))


def only(content: RecordDict, kind: str) -> Any:
    """The single ArrayRecord, MetricRecord or ConfigRecord of a message: `kind` is `array`, `metric` or `config`.

    Raises:
        MalformedRecord: none, or more than one.
    """
    kinds: dict[str, Mapping[str, Any]] = {
        "array": content.array_records,
        "metric": content.metric_records,
        "config": content.config_records,
    }
    records = kinds[kind]
    if len(records) != 1:
        raise MalformedRecord(f"{len(records)} {kind} records where one was expected")
    return next(iter(records.values()))


def config_record(values: Mapping[str, Any]) -> ConfigRecord:
    """A ConfigRecord of scalars, texts and lists of them."""
    return ConfigRecord(dict(values))


def metric_record(values: Mapping[str, Any]) -> MetricRecord:
    """A MetricRecord of numbers and lists of numbers."""
    return MetricRecord(dict(values))
