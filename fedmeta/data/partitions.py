"""Divisions of a class data set among clients.

Training, validation and test clients are disjoint, and so are the classes they see: a client of a role holds only
classes of that role's split. Where the data set has no validation classes, some training classes are held out.
"""

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from fedmeta.data.class_dataset import ClassDataset, Share, Split
from fedmeta.errors import ConfigurationError
from fedmeta.parameters import parameter

HELD_OUT = 0.1
"""Share of the training classes held out for validation, where a data set has none of its own and no alphabets."""

SEED = "of the division alone, where several runs share one; none: the experiment's seed"
"""What a partition's own seed is for."""

ROLES: tuple[Split, ...] = ("train", "validation", "test")


class Partition(Protocol):
    """A division of a class data set.

    Attributes:
        validation_clients: at most so many; None for as many as there are.
        pooled: whether one more client holds everything that the test clients hold.
        min_examples: a client drops a class of which it has fewer examples.
        min_classes: a client with fewer classes is left out.
    """

    validation_clients: int | None
    pooled: bool
    min_examples: int
    min_classes: int

    def shares(self, dataset: ClassDataset, rng: np.random.Generator) -> list[Share]:
        """The clients' shares, in any order; one without examples is left out by the caller."""
        ...


@dataclass(frozen=True)
class _Common:
    validation_clients: int | None = parameter(
        None,
        ge=0,
        doc="validation clients; none: as many as the data set's own validation classes make",
        unit="clients",
    )
    pooled: bool = parameter(
        True, doc="one more client that holds the data of all test clients, to be judged across them"
    )
    min_examples: int = parameter(2, ge=1, doc="a client drops a class of which it has fewer", unit="examples")
    min_classes: int = parameter(1, ge=1, doc="a client that has fewer is left out", unit="classes")
    seed: int | None = parameter(None, ge=0, doc=SEED)


@dataclass(frozen=True)
class ByAlphabet(_Common):
    """One client an alphabet. Validation clients are whole alphabets, where needed taken from the training side."""

    def shares(self, dataset: ClassDataset, rng: np.random.Generator) -> list[Share]:
        """One share for every alphabet of every role."""
        dataset = hold_out_alphabets(dataset, self.validation_clients, rng)
        return [Share(name, role, rows) for role, name, rows in alphabets_by_role(dataset)]


@dataclass(frozen=True)
class Centralised(_Common):
    """One training client with everything that trains; the others as `ByAlphabet`, so that numbers can be compared.

    Of data without alphabets the others are those of `IID` with as many test clients.
    """

    test_clients: int = parameter(5, ge=1, doc="test clients of data without alphabets", unit="clients")

    def shares(self, dataset: ClassDataset, rng: np.random.Generator) -> list[Share]:
        """The training classes as one share, and one share for every other alphabet."""
        if dataset.group in dataset.columns:
            dataset = hold_out_alphabets(dataset, self.validation_clients, rng)
            divided = [Share(name, role, rows) for role, name, rows in alphabets_by_role(dataset)]
        else:
            # As `IID` with its own number of training clients, whose examples are then put together: so its test
            # clients are the same, and where classes are shared none of their examples is trained on.
            by_chance = IID(test_clients=self.test_clients, validation_clients=self.validation_clients, pooled=False)
            divided = by_chance.shares(dataset, rng)
        train = [share.rows for share in divided if share.role == "train"] or [np.zeros(0, dtype=np.int64)]
        others = [share for share in divided if share.role != "train"]
        return [Share("everything", "train", np.sort(np.concatenate(train))), *others]


@dataclass(frozen=True)
class ByColumn(_Common):
    """One client a value of a column, or a few values; its roles are drawn by the seed.

    A data set with one image of a class from each writer needs several writers a client.
    """

    column: str = parameter("client", doc="the column of the data set that says whose an example is")
    per_client: int = parameter(1, ge=1, doc="values of the column that make one client")
    test_fraction: float = parameter(0.2, gt=0, lt=1, doc="share of the column's values whose clients are test clients")

    def shares(self, dataset: ClassDataset, rng: np.random.Generator) -> list[Share]:
        """Values are shuffled, grouped, and given roles; a client keeps the classes of its role's split."""
        dataset = hold_out_classes(dataset, self.validation_clients, rng)
        codes = dataset.column(self.column)
        owners = owners_by_role(self, dataset, codes, rng)
        return [
            Share(_name(dataset, self.column, group), role, _rows(dataset, role, np.isin(codes, group)))
            for role in ROLES
            for group in owners[role]
        ]


@dataclass(frozen=True)
class ByWriter(ByColumn):
    """One client a writer, or a few writers: unseen writers are judged on unseen classes."""

    column: str = parameter("writer", doc="the column of the data set that says whose an example is")


@dataclass(frozen=True)
class ByAlphabetWriter(ByColumn):
    """One client an (alphabet, writer) pair: unseen writers' unseen alphabets."""

    column: str = parameter("writer", doc="the column of the data set that says whose an example is")

    def shares(self, dataset: ClassDataset, rng: np.random.Generator) -> list[Share]:
        """Every alphabet of a role with every group of writers of that role."""
        codes = dataset.column(self.column)
        groups = _test_groups(self, len(np.unique(codes)) // self.per_client)
        # Validation gets as many groups of writers as the test side, so each alphabet makes so many clients.
        dataset = hold_out_alphabets(dataset, math.ceil((self.validation_clients or 0) / groups), rng)
        owners = owners_by_role(self, dataset, codes, rng)
        return [
            Share(f"{name}/{_name(dataset, self.column, group)}", role, rows[np.isin(codes[rows], group)])
            for role, name, rows in alphabets_by_role(dataset)
            for group in owners[role]
        ]


@dataclass(frozen=True)
class IID(_Common):
    """Examples of each class dealt evenly at random among the clients of its role."""

    clients: int = parameter(20, ge=1, doc="training clients", unit="clients")
    test_clients: int = parameter(5, ge=1, doc="test clients", unit="clients")

    def proportions(self, clients: int, rng: np.random.Generator) -> np.ndarray:
        """The share of one class that each of so many clients gets."""
        return np.full(clients, 1.0 / clients)

    def shares(self, dataset: ClassDataset, rng: np.random.Generator) -> list[Share]:
        """Each class is shuffled, then cut at its cumulated proportions."""
        dataset = hold_out_classes(dataset, self.validation_clients, rng)
        has_validation = len(dataset.split_rows("validation")) > 0
        validation = self.validation_clients if self.validation_clients is not None else int(has_validation)
        counts = {"train": self.clients, "validation": validation, "test": self.test_clients}
        if dataset.shared_classes:
            dealt = self._dealt(dataset, dataset.split_rows("train"), sum(counts.values()), rng)
            roles: list[Split] = [role for role in ROLES for _ in range(counts[role])]
            return [Share(f"client {i}", role, rows) for i, (role, rows) in enumerate(zip(roles, dealt, strict=True))]
        return [
            Share(f"{role} {i}", role, rows)
            for role in ROLES
            for i, rows in enumerate(self._dealt(dataset, dataset.split_rows(role), counts[role], rng))
        ]

    def _dealt(
        self, dataset: ClassDataset, rows: np.ndarray, clients: int, rng: np.random.Generator
    ) -> list[np.ndarray]:
        """Rows of each of so many clients."""
        pieces: list[list[np.ndarray]] = [[] for _ in range(clients if len(rows) else 0)]
        # Where clients of all roles share classes, what overlaps (snippets of one paragraph) goes to one of them whole.
        whole = dataset.column(dataset.apart) if dataset.shared_classes and dataset.apart is not None else None
        for c in np.unique(dataset.labels[rows]) if pieces else ():
            own = rows[dataset.labels[rows] == c]
            dealt = rng.permutation(own if whole is None else np.unique(whole[own]))
            owners = rng.permutation(clients)  # so that remainders do not always go to the same clients
            cuts = np.round(np.cumsum(self.proportions(clients, rng))[:-1] * len(dealt)).astype(int)
            for owner, piece in zip(owners, np.split(dealt, cuts), strict=True):
                pieces[owner].append(piece if whole is None else own[np.isin(whole[own], piece)])
        return [np.concatenate(found) for found in pieces]


@dataclass(frozen=True)
class Dirichlet(IID):
    """Each class split by proportions from Dirichlet(alpha) (Hsu et al. 2019): the smaller alpha, the fewer owners."""

    alpha: float = parameter(0.5, gt=0, doc="concentration: 0.1 is very uneven, 100 nearly even")

    def proportions(self, clients: int, rng: np.random.Generator) -> np.ndarray:
        """A draw for one class."""
        return rng.dirichlet(np.full(clients, self.alpha))


def alphabets_by_role(dataset: ClassDataset) -> list[tuple[Split, str, np.ndarray]]:
    """(role, alphabet, rows) in the order of roles, then of alphabets."""
    if dataset.shared_classes:
        raise ConfigurationError(
            f"task.kind = 'own' gives all clients the same classes, and {dataset.group}s divide them: "
            "set partition.name to writer, column, iid or dirichlet"
        )
    column = dataset.group
    codes = dataset.column(column)
    present = {role: np.unique(codes[dataset.split_rows(role)]).tolist() for role in ROLES}
    seen = Counter(code for role in ROLES for code in present[role])
    found: list[tuple[Split, str, np.ndarray]] = []
    for role in ROLES:
        rows = dataset.split_rows(role)
        for code in present[role]:
            # An alphabet whose classes serve several roles makes a client in each.
            suffix = f" ({role})" if seen[code] > 1 else ""
            found.append((role, dataset.name(column, code) + suffix, rows[codes[rows] == code]))
    return found


def owners_by_role(
    partition: ByColumn, dataset: ClassDataset, codes: np.ndarray, rng: np.random.Generator
) -> dict[Split, list[np.ndarray]]:
    """Groups of a column's values for each role, disjoint.

    Raises:
        ConfigurationError: too few values to give every role a client.
    """
    groups = _grouped(rng.permutation(np.unique(codes)), partition.per_client)
    wanted = partition.validation_clients
    validating = wanted != 0 and len(dataset.split_rows("validation")) > 0
    test = _test_groups(partition, len(groups))
    validation = (test if wanted is None or isinstance(partition, ByAlphabetWriter) else wanted) if validating else 0
    if len(groups) - test - validation < 1:
        raise ConfigurationError(
            f"{len(groups)} groups of {partition.per_client} {partition.column}s give no training client beside {test} "
            f"test and {validation} validation ones: lower partition.per_client or partition.test_fraction"
        )
    return {
        "test": groups[:test],
        "validation": groups[test : test + validation],
        "train": groups[test + validation :],
    }


def hold_out_alphabets(dataset: ClassDataset, wanted: int | None, rng: np.random.Generator) -> ClassDataset:
    """With some training alphabets moved to validation, where it has no validation classes and some are wanted.

    Raises:
        ConfigurationError: no alphabet would be left to train on.
    """
    if not wanted or len(dataset.split_rows("validation")):
        return dataset
    column = dataset.group
    codes = dataset.column(column)
    found = np.unique(codes[dataset.split_rows("train")])
    if wanted >= len(found):
        raise ConfigurationError(
            f"partition.validation_clients = {wanted} leaves none of {len(found)} training {column}s: lower it"
        )
    return _moved(dataset, np.isin(dataset.of_class(column), rng.permutation(found)[:wanted]))


def hold_out_classes(dataset: ClassDataset, wanted: int | None, rng: np.random.Generator) -> ClassDataset:
    """As `hold_out_alphabets`, with a tenth of the training classes whatever their alphabet."""
    if not wanted or dataset.shared_classes or len(dataset.split_rows("validation")):
        return dataset
    train = np.array([i for i, split in enumerate(dataset.splits) if split == "train"])
    chosen = rng.permutation(train)[: max(1, round(HELD_OUT * len(train)))]
    return _moved(dataset, np.isin(np.arange(dataset.classes), chosen))


def _moved(dataset: ClassDataset, chosen: np.ndarray) -> ClassDataset:
    """The chosen classes, where they are training ones, as validation classes."""
    splits: list[Split] = [
        "validation" if split == "train" and moved else split
        for split, moved in zip(dataset.splits, chosen, strict=True)
    ]
    return replace(dataset, splits=splits)


def _test_groups(partition: ByColumn, groups: int) -> int:
    return max(1, round(partition.test_fraction * groups))


def _grouped(values: np.ndarray, size: int) -> list[np.ndarray]:
    return [np.sort(values[i : i + size]) for i in range(0, len(values) - size + 1, size)]


def _name(dataset: ClassDataset, column: str, group: np.ndarray) -> str:
    return "+".join(dataset.name(column, int(code)) for code in group)


def _rows(dataset: ClassDataset, role: Split, mask: np.ndarray) -> np.ndarray:
    rows = dataset.split_rows(role)
    return rows[mask[rows]]
