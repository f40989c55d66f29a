"""Meta-data sets in the shape of torchmeta: `meta[(3, 7, 9)]` is a data set of the examples of these classes."""

from collections.abc import Sequence
from typing import Any, Protocol

from fedmeta.data.class_dataset import ClassDataset, Split
from fedmeta.data.own import Rows, from_rows


class MetaDataset(Protocol):
    """What torchmeta's `CombinationMetaDataset` has; its `dataset` holds one entry a class."""

    num_classes_per_task: int
    dataset: Any

    def __getitem__(self, classes: tuple[int, ...]) -> Rows:
        """Rows `(x, target)`, class after class in the order asked for."""
        ...


def from_torchmeta(
    train: MetaDataset,
    test: MetaDataset,
    validation: MetaDataset | None = None,
    *,
    clients: Sequence[Any] | None = None,
) -> ClassDataset:
    """Read every class of meta-training, meta-validation and meta-test into memory.

    Targets of a task only tell its classes apart: they are numbered in the order in which they first appear.

    Args:
        train, test, validation: meta-data sets without a common class.
        clients: owner of every example: of training classes first, then of validation's, then of test's.
    """
    given: list[tuple[Split, MetaDataset | None]] = [("train", train), ("validation", validation), ("test", test)]
    rows: list[tuple[Any, str]] = []
    splits: dict[str, Split] = {}
    for split, meta in given:
        for index in range(0 if meta is None else len(meta.dataset)):
            assert meta is not None
            name = f"{split}/{index:05}"
            splits[name] = split
            rows += [(x, name) for x in _examples(meta, index)]
    return from_rows(rows, client=clients, splits=splits)


def _examples(meta: MetaDataset, index: int) -> list[Any]:
    """The inputs of one class: the first of a task that it makes with the classes after it."""
    ways, classes = meta.num_classes_per_task, len(meta.dataset)
    task = meta[tuple((index + shift) % classes for shift in range(ways))]
    found = [task[i] for i in range(len(task))]
    return [x for x, target in found if repr(target) == repr(found[0][1])]
