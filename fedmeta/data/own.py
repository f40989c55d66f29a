"""Data of one's own: arrays, torch data sets, Hugging Face data sets, partitioners, folders of images.

Nothing of these libraries is imported: an object is taken for what it can do.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fedmeta.data.arrays import dataset_from_arrays
from fedmeta.data.class_dataset import ClassDataset
from fedmeta.errors import DataError

Column = int | str
"""Where a row holds something: a place in a tuple, or a key of a mapping."""


class Rows(Protocol):
    """A torch `Dataset`, a Hugging Face `datasets.Dataset`, a list: rows by number, each a tuple or a mapping."""

    def __len__(self) -> int:
        """How many rows."""
        ...

    def __getitem__(self, index: int) -> Any:
        """One row."""
        ...


class Partitioner(Protocol):
    """A partitioner of `flwr-datasets` that has its data set, or anything that gives rows by partition."""

    @property
    def num_partitions(self) -> int:
        """How many clients."""
        ...

    def load_partition(self, partition_id: int) -> Rows:
        """The rows of one client."""
        ...


def from_rows(
    rows: Rows,
    *,
    x: Column = 0,
    label: Column = 1,
    client: Column | Sequence[Any] | np.ndarray | None = None,
    **split: Any,
) -> ClassDataset:
    """From anything with `len(rows)` and `rows[i]`, read once into memory.

    Args:
        rows: tuples, such as `(image, label)`, or mappings, such as `{"image": ..., "label": ...}`.
        x: where a row holds its input: an image of Pillow, an array or a tensor, all of one shape.
        label: where it holds its class: a number or a name.
        client: where it holds its owner; or the owner of every row, in a list of their length; None for no owners.
        split: `test_share`, `validation_share`, `seed` of `dataset_from_arrays`.

    Raises:
        DataError: a row without such a column, or inputs of several shapes.
    """
    found = [rows[index] for index in range(len(rows))]
    examples = _stacked([_cell(row, x, "x", index) for index, row in enumerate(found)])
    labels = [_plain(_cell(row, label, "label", index)) for index, row in enumerate(found)]
    clients: Any = client
    if isinstance(client, int | str):
        clients = [_plain(_cell(row, client, "client", index)) for index, row in enumerate(found)]
    return dataset_from_arrays(examples, labels, clients, **split)


def from_partitions(partitioner: Partitioner, *, x: Column = 0, label: Column = 1, **split: Any) -> ClassDataset:
    """From a partitioner of `flwr-datasets` whose `dataset` is set, or what is shaped so: a client is a partition.

    Args:
        partitioner: has `num_partitions` and `load_partition(i)`.
        x, label, split: as for `from_rows`, which reads every partition.
    """
    rows: list[Any] = []
    owners: list[int] = []
    for owner in range(partitioner.num_partitions):
        part = partitioner.load_partition(owner)
        rows += [part[index] for index in range(len(part))]
        owners += [owner] * len(part)
    return from_rows(rows, x=x, label=label, client=owners, **split)


def from_folder(path: str | Path, shape: tuple[int, ...] = (1, 28, 28), **split: Any) -> ClassDataset:
    """From images `client/class/*.png`; a class of one name is the same for all clients.

    Args:
        path: of the folder of clients.
        shape: of every image: `(1, height, width)` for grey ones, `(3, height, width)` for colour.
        split: as for `from_rows`.

    Raises:
        DataError: no such folders, a client without a class or a class without an image, or images of another shape.
    """
    from fedmeta.data.node_files import class_files, read_image

    if not isinstance(path, str | Path) or str(path) == "" or "\0" in str(path):
        raise DataError(f"path = {path!r:.80} is no folder: give the path of one")
    place = Path(path).expanduser()
    clients = sorted(found for found in place.glob("*") if found.is_dir() and not found.name.startswith("."))
    if not clients:
        raise DataError(f"path = '{place}' holds no folders: put images into client/class/*.png")
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(f"shape = {shape}: images have (1, height, width) or (3, height, width)")
    listed = []
    for client in clients:
        try:
            listed += [(file, folder.name, client.name) for folder, own in class_files(client).items() for file in own]
        except DataError as error:
            raise DataError(f"the client's folder '{client}': {error}") from error
    examples = np.stack([read_image(file, shape) for file, _, _ in listed])
    return dataset_from_arrays(examples, [name for _, name, _ in listed], [owner for _, _, owner in listed], **split)


def _cell(row: Any, column: Column, what: str, index: int) -> Any:
    try:
        return row[column]
    except (KeyError, IndexError, TypeError) as error:
        has = f"keys {', '.join(map(str, row))}" if isinstance(row, Mapping) else f"{type(row).__name__} {row!r:.60}"
        raise DataError(f"row {index} has no {column!r}, but {has}: say where its {what} is, {what}=...") from error


def _plain(value: Any) -> Any:
    """A number or a name; a tensor or array of one number as that."""
    return value.item() if hasattr(value, "item") else value


def _stacked(inputs: list[Any]) -> np.ndarray:
    """`[n, ...]`: uint8, uint16 and whatever looks like pictures as they are, other numbers as float32.

    Pillow's images have channels first.
    """
    arrays = [np.asarray(value) for value in inputs]
    shapes = sorted({array.shape for array in arrays}, key=str)
    if len(shapes) > 1:
        raise DataError(f"inputs have shapes {', '.join(map(str, shapes[:3]))}: bring them to one, such as by resizing")
    stacked = np.stack(arrays) if arrays else np.zeros((0, 1))
    if inputs and hasattr(inputs[0], "getbands") and stacked.ndim == 4:
        stacked = np.moveaxis(stacked, -1, 1)
    as_they_are = stacked.dtype in (np.uint8, np.uint16) or (stacked.dtype.kind in "iu" and stacked.ndim > 2)
    return stacked if as_they_are else stacked.astype(np.float32)
