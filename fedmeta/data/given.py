"""A data set that is handed over in memory: `simulate(..., data=my_data)`."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedmeta.data.class_dataset import ClassDataset
from fedmeta.data.delivered import data_key, deliver
from fedmeta.errors import DataError
from fedmeta.parameters import parameter
from fedmeta.tasks import TASKS, Task


@dataclass(frozen=True)
class Given:
    """What an experiment says of a data set that only its caller has; `simulate(data=...)` fills this in."""

    shape: tuple[int, ...] = parameter(doc="of one input", ge=1)
    classes: int = parameter(doc="of the whole data set", ge=1)
    digest: str = parameter(doc="of the content, so that a resumed run is told another data set from its own")

    @property
    def task(self) -> Task:
        """Classification."""
        return TASKS["classification"]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """As given."""
        return self.shape

    def load(self) -> ClassDataset:
        """Refuse: it was not handed over to this process.

        Raises:
            DataError: always.
        """
        raise DataError(
            "data.name = 'given': this run's data were handed over in memory, and are not here. Hand over the same "
            "ones again: simulate(..., data=...)"
        )


def hand_over(dataset: ClassDataset) -> dict[str, Any]:
    """Let this process use a data set under the name `given`.

    Returns:
        The overrides that name it in an experiment.
    """
    parameters = {"shape": list(dataset.input_shape), "classes": dataset.classes, "digest": digest_of(dataset)}
    deliver({data_key("given", parameters): dataset})
    return {"data.name": "given", **{f"data.{key}": value for key, value in parameters.items()}}


def digest_of(dataset: ClassDataset) -> str:
    """SHA-256 over examples, labels, splits and columns, in hexadecimal."""
    digest = hashlib.sha256()
    arrays = {"examples": dataset.examples, "labels": dataset.labels, **dataset.columns}
    for name, array in arrays.items():
        digest.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update(json.dumps([list(dataset.splits), dataset.group, dataset.within, dataset.apart]).encode())
    return digest.hexdigest()
