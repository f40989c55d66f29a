"""A data set of labelled examples with group columns, and its division among clients."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fedmeta.data.base import ClientInfo, ClientRole
from fedmeta.data.episodes import ClassSource, EpisodeRules, input_shape_of
from fedmeta.errors import ConfigurationError, DataError
from fedmeta.parameters import require_number
from fedmeta.tasks import TASKS, Baseline, Task

if TYPE_CHECKING:
    from fedmeta.data.partitions import Partition

Split = Literal["train", "validation", "test"]

log = logging.getLogger("fedmeta.data")


@dataclass(frozen=True)
class Share:
    """What a partition gives one client.

    Attributes:
        name: readable.
        role: what the client serves for.
        rows: of the data set, in any order.
    """

    name: str
    role: ClientRole
    rows: np.ndarray


@dataclass(frozen=True)
class ClassDataset:
    """Labelled examples.

    Attributes:
        examples: uint8 images `[n, height, width]` or `[n, channels, height, width]`, floats `[n, ...]`, or uint16
            codes `[n, ...]`; perhaps a read-only memory map that all processes share.
        labels: `[n]` int64 class ids, 0 <= id < classes.
        splits: the split of every class, by class id.
        columns: name -> `[n]` int64 codes of a grouping, such as `alphabet` or `writer`.
        names: column -> readable name of each code; codes stand for themselves where a column has none.
        shared_classes: every client may hold every class, as a model with one head for all needs: splits do not apply,
            and only partitions by owners or by chance divide the data.
        group: the column that groups classes, as alphabets do: what the partitions `group` and `alphabet` divide by.
        within: a column, if any, that is one for all classes of an episode; every class has one code of it.
        apart: a column, if any, that no two examples of a class share in an episode.
        baselines: the data set's own, from its division among clients; None for pixel nearest neighbour.
    """

    examples: np.ndarray
    labels: np.ndarray
    splits: Sequence[Split]
    columns: Mapping[str, np.ndarray]
    names: Mapping[str, Sequence[str]]
    shared_classes: bool = False
    group: str = "alphabet"
    within: str | None = None
    apart: str | None = None
    baselines: "Callable[[ClassFederation], Mapping[str, Baseline]] | None" = None

    @property
    def task(self) -> Task:
        """Classification."""
        return TASKS["classification"]

    @property
    def classes(self) -> int:
        """Number of classes over all splits."""
        return len(self.splits)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input: images get a channel axis."""
        return input_shape_of(self.examples)

    def split_rows(self, split: Split) -> np.ndarray:
        """Rows of the classes of a split, ascending; all rows where classes are shared."""
        if self.shared_classes:
            return np.arange(len(self.labels))
        chosen = np.array([name == split for name in self.splits])
        return np.flatnonzero(chosen[self.labels])

    def column(self, name: str) -> np.ndarray:
        """A grouping.

        Raises:
            ConfigurationError: the data set has no such column.
        """
        if name not in self.columns:
            raise ConfigurationError(
                f"this data set has no '{name}' of each example, only {', '.join(self.columns) or 'classes'}: "
                "choose another partition"
            )
        return self.columns[name]

    def of_class(self, column: str) -> np.ndarray:
        """`[classes]`, the code that the examples of each class have in a column that is one for a class."""
        codes = np.zeros(self.classes, dtype=np.int64)
        codes[self.labels] = self.column(column)
        return codes

    @cached_property
    def rules(self) -> EpisodeRules:
        """What episodes keep to."""
        return EpisodeRules(
            None if self.within is None else self.of_class(self.within),
            None if self.apart is None else self.column(self.apart),
        )

    def name(self, column: str, code: int) -> str:
        """The readable name of a code of a column."""
        return self.names[column][code] if column in self.names else f"{column} {code}"

    def federate(self, partition: "Partition", seed: int) -> "ClassFederation":
        """Divide among clients, train first, then validation, test, and the pooled one.

        Raises:
            ConfigurationError: a partition that this data set cannot have, or more validation clients than it makes.
            DataError: no client is left to train.
        """
        divided = partition.shares(self, np.random.default_rng(seed))
        order: tuple[ClientRole, ...] = ("train", "validation", "test")
        made = sum(share.role == "validation" for share in divided)
        if partition.validation_clients is not None and made < partition.validation_clients:
            raise ConfigurationError(
                f"partition.validation_clients = {partition.validation_clients}, and this division makes only {made}: "
                "lower it, or choose another data.split"
            )
        trimmed = [self._trimmed(share, partition) for share in divided]
        kept = [share for share in trimmed if share is not None]
        if len(kept) < len(divided):
            log.info(
                "%d of %d clients are left out: too few classes or examples", len(divided) - len(kept), len(divided)
            )
        by_role = {role: [share for share in kept if share.role == role] for role in order}
        # A slice up to None is the whole list.
        by_role["validation"] = by_role["validation"][: partition.validation_clients]
        shares = [share for role in order for share in by_role[role]]
        if not by_role["train"]:
            raise DataError(
                f"no training client has partition.min_classes = {partition.min_classes} classes of "
                f"partition.min_examples = {partition.min_examples} examples: lower them or the number of clients, "
                "raise partition.per_client where a client is a writer, or use a coarser partition"
            )
        test_rows = [share.rows for share in shares if share.role == "test"]
        if partition.pooled and test_rows:
            shares.append(Share("all test clients", "pooled", np.concatenate(test_rows)))
        return ClassFederation(self, tuple(shares), partition.min_examples)

    def _trimmed(self, share: Share, partition: "Partition") -> Share | None:
        """Without classes of too few examples; None with too few classes."""
        found = self._by_class(share.rows, partition.min_examples)
        if len(found) < partition.min_classes:
            return None
        return Share(share.name, share.role, np.concatenate(list(found.values())))

    def _by_class(self, rows: np.ndarray, min_examples: int) -> dict[int, np.ndarray]:
        """Rows by class, without classes of fewer than `min_examples`."""
        if not len(rows):
            return {}
        rows = np.sort(rows)
        labels = self.labels[rows]
        order = np.argsort(labels, kind="stable")
        found, starts = np.unique(labels[order], return_index=True)
        pieces = np.split(rows[order], starts[1:])
        return {int(c): piece for c, piece in zip(found, pieces, strict=True) if len(piece) >= min_examples}


@dataclass(frozen=True)
class ClassFederation:
    """A class data set divided among clients."""

    dataset: ClassDataset
    shares: tuple[Share, ...]
    min_examples: int

    @cached_property
    def clients(self) -> Sequence[ClientInfo]:
        """The clients by id."""
        return tuple(ClientInfo(i, share.name, share.role) for i, share in enumerate(self.shares))

    @cached_property
    def baselines(self) -> Mapping[str, Baseline] | None:
        """The data set's own; None where it names none."""
        return None if self.dataset.baselines is None else self.dataset.baselines(self)

    @cached_property
    def _sources(self) -> dict[int, ClassSource]:
        return {}

    def source(self, client: int) -> ClassSource:
        """The examples of one client."""
        if client not in self._sources:
            share = self.shares[client]
            rows = self.dataset._by_class(share.rows, self.min_examples)
            self._sources[client] = ClassSource(share.name, self.dataset.examples, rows, self.dataset.rules)
        return self._sources[client]


def dataset_from_arrays(
    examples: np.ndarray,
    labels: Sequence[Any] | np.ndarray,
    clients: Sequence[Any] | np.ndarray | None = None,
    *,
    test_share: float = 0.2,
    validation_share: float = 0.0,
    seed: int = 0,
    splits: Mapping[Any, Split] | None = None,
) -> ClassDataset:
    """A data set from arrays with a class column and, where there is one, a client column.

    Args:
        examples: `[n, ...]`, see `ClassDataset`.
        labels: `[n]` class of each example: any integers or names.
        clients: `[n]` owner of each example: likewise; the partition `column` with `column = "client"` uses it.
        test_share, validation_share: shares of the *classes* that are held out, drawn by `seed`.
        seed: of that draw.
        splits: the split of each class by its label, in place of a draw.

    Raises:
        DataError: lengths that differ, no examples, a label without a split, or shares that leave no training class.
    """
    if len(examples) == 0 or len(examples) != len(labels) or (clients is not None and len(clients) != len(examples)):
        raise DataError(
            f"{len(examples)} examples, {len(labels)} labels and {'no' if clients is None else len(clients)} clients: "
            "give one label, and one client or none at all, for every example"
        )
    found, codes = np.unique(np.asarray(labels), return_inverse=True)
    columns = {}
    names = {"class": [str(label) for label in found]}
    if clients is not None:
        owners, owner = np.unique(np.asarray(clients), return_inverse=True)
        columns["client"] = owner.astype(np.int64)
        names["client"] = [f"client {value}" if isinstance(value, np.number) else str(value) for value in owners]
    if splits is None:
        chosen = _drawn_splits(len(found), test_share, validation_share, seed)
    else:
        missing = [label for label in found.tolist() if label not in splits]
        if missing:
            raise DataError(f"splits says nothing of class {missing[0]!r}: give train, validation or test for each")
        chosen = [splits[label] for label in found.tolist()]
    return ClassDataset(np.asarray(examples), codes.astype(np.int64), chosen, columns, names)


def _drawn_splits(classes: int, test_share: float, validation_share: float, seed: int) -> list[Split]:
    for name, value in (("test_share", test_share), ("validation_share", validation_share)):
        require_number(name, value, what=DataError)
        if not 0 <= value < 1:
            raise DataError(f"{name} = {value} must be >= 0, < 1: a share of the classes")
    require_number("seed", seed, whole=True, what=DataError)
    if seed < 0:
        raise DataError(f"seed = {seed} must be >= 0")
    held = [round(share * classes) for share in (test_share, validation_share)]
    if min(held) < 0 or sum(held) >= classes:
        raise DataError(
            f"test_share = {test_share} and validation_share = {validation_share} leave none of {classes} classes for "
            "training: give shares that are not negative and sum to less than 1"
        )
    order = np.random.default_rng(seed).permutation(classes)
    splits: list[Split] = ["train"] * classes
    for i in order[: held[0]]:
        splits[i] = "test"
    for i in order[held[0] : sum(held)]:
        splits[i] = "validation"
    return splits
