"""Drawing episodes from a client's share of a class data set."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from fedmeta.data.base import EpisodeShape, TaskSource
from fedmeta.errors import DataError
from fedmeta.seeding import SERVER, numpy_generator
from fedmeta.tasks import Batch, Episode


@dataclass(frozen=True)
class EpisodeRules:
    """What the episodes of a data set keep to beside their shape.

    Attributes:
        within: `[classes]` a code of every class id; the classes of an episode have one code (one script).
        apart: `[n]` a code of every example; in an episode no two examples of a class have the same (one text,
            patient or recording), so that support and query share none.
    """

    within: np.ndarray | None = None
    apart: np.ndarray | None = None


@dataclass(frozen=True)
class ClassSource:
    """One client's examples by class: N-way K-shot episodes.

    Attributes:
        name: of the client, for errors.
        examples: of the whole data set, shared by all clients and never written; see `examples_to_inputs`.
        rows: class id -> rows of `examples` that are this client's, in ascending order of class.
        rules: of the data set.
    """

    name: str
    examples: np.ndarray
    rows: Mapping[int, np.ndarray]
    rules: EpisodeRules = EpisodeRules()

    @cached_property
    def classes(self) -> np.ndarray:
        """The client's class ids, ascending."""
        return np.array(sorted(self.rows), dtype=np.int64)

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows by class, padded to the longest, and how many of each are real."""
        counts = np.array([len(self.rows[int(c)]) for c in self.classes])
        table = np.zeros((len(counts), counts.max(initial=0)), dtype=np.int64)
        for index, c in enumerate(self.classes):
            table[index, : counts[index]] = self.rows[int(c)]
        return table, counts

    @cached_property
    def _usable(self) -> np.ndarray:
        """How many examples of each class an episode can hold."""
        if self.rules.apart is None:
            return self._table[1]
        return np.array([len(np.unique(self.rules.apart[self.rows[int(c)]])) for c in self.classes])

    @cached_property
    def _strata(self) -> list[np.ndarray]:
        """Places in `classes` that may meet in an episode, the most first."""
        codes = np.zeros(len(self.classes)) if self.rules.within is None else self.rules.within[self.classes]
        found = [np.flatnonzero(codes == code) for code in np.unique(codes)]
        return sorted(found, key=len, reverse=True) or [np.zeros(0, dtype=np.int64)]

    def check(self, shape: EpisodeShape) -> None:
        """Refuse episodes that this client's data cannot give.

        Raises:
            DataError: fewer classes than ways, or a class with fewer examples than shots + queries.
        """
        most, counts = len(self._strata[0]), self._usable
        if most < shape.ways:
            of_one = "" if self.rules.within is None else " that may meet"
            raise DataError(
                f"{called(self.name)} has {most} classes{of_one}, and an episode needs {shape.ways}: "
                f"lower ways to {most}, raise partition.min_classes to leave such clients out, "
                "or use a coarser partition"
            )
        needed = shape.shots + shape.queries
        if counts.min() < needed:
            worst = int(counts.argmin())
            raise DataError(
                f"{called(self.name)} has {counts[worst]} examples of class {self.classes[worst]}, and an episode "
                f"needs {shape.shots} shots + {shape.queries} queries = {needed}: lower them, set "
                f"partition.min_examples = {needed} to leave such classes out, or give clients more (fewer clients, or "
                "more writers each)"
            )

    def sample(self, shape: EpisodeShape, rng: np.random.Generator) -> Episode:
        """Draw classes without replacement, and each class's examples independently of the others'.

        Returns:
            An episode, support and query shot by shot.

        Raises:
            DataError: the client cannot give such an episode.
        """
        rows, classes = self.draw(shape, rng)
        slots = torch.arange(shape.ways)
        return Episode(
            Batch(self.inputs(rows[: shape.shots]), slots.repeat(shape.shots)),
            Batch(self.inputs(rows[shape.shots :]), slots.repeat(shape.queries)),
            torch.from_numpy(classes),
        )

    def draw(self, shape: EpisodeShape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """As `sample`: the rows `[shots + queries, ways]` of an episode's examples, and its class ids `[ways]`."""
        self.check(shape)
        chosen = self._meeting(shape.ways, rng)
        needed = shape.shots + shape.queries
        rows = self._any(chosen, needed, rng) if self.rules.apart is None else self._apart(chosen, needed, rng)
        return rows, self.classes[chosen]

    def _meeting(self, ways: int, rng: np.random.Generator) -> np.ndarray:
        """Places in `classes` of an episode's classes; groups of classes by their number of classes."""
        if self.rules.within is None:
            return rng.choice(len(self.classes), ways, replace=False)
        groups = [group for group in self._strata if len(group) >= ways]
        sizes = np.array([len(group) for group in groups])
        group = groups[int(rng.choice(len(groups), p=sizes / sizes.sum()))]
        return rng.choice(group, ways, replace=False)

    def _any(self, chosen: np.ndarray, needed: int, rng: np.random.Generator) -> np.ndarray:
        """Rows `[needed, ways]` of the classes at these places."""
        table, counts = self._table
        # A random order of each class's own examples: padded places sort behind the real ones.
        keys = rng.random((len(chosen), table.shape[1]))
        keys[np.arange(table.shape[1]) >= counts[chosen, None]] = 2.0
        order = np.argsort(keys, axis=1)
        return np.take_along_axis(table[chosen], order[:, :needed], axis=1).T

    def _apart(self, chosen: np.ndarray, needed: int, rng: np.random.Generator) -> np.ndarray:
        """As `_any`: of each class the first example of so many codes, in a random order of its examples."""
        assert self.rules.apart is not None
        columns = []
        for place in chosen:
            own = rng.permutation(self.rows[int(self.classes[place])])
            _, first = np.unique(self.rules.apart[own], return_index=True)
            columns.append(own[np.sort(first)[:needed]])
        return np.stack(columns, axis=1)

    def inputs(self, rows: np.ndarray) -> torch.Tensor:
        """Inputs of the given rows, in their order."""
        return examples_to_inputs(self.examples[rows.reshape(-1)])


def called(name: str) -> str:
    """A client by its name, in a sentence.

    >>> called("Korean"), called("client 7")
    ('client Korean', 'client 7')
    """
    return name if name.startswith("client ") else f"client {name}"


def examples_to_inputs(examples: np.ndarray) -> torch.Tensor:
    """Stored examples as inputs.

    Args:
        examples: uint8 `[n, height, width]` or `[n, channels, height, width]`, which become `[n, channels, height,
            width]` in [0, 1]; floats `[n, ...]`, which stay as they are; or uint16 codes `[n, ...]` of characters or
            items, which become int64, for a model that embeds them.
    """
    return as_inputs(as_stored(examples))


def as_stored(examples: np.ndarray) -> torch.Tensor:
    """Stored examples as a tensor: bytes of pictures stay bytes, floats become float32, codes int64."""
    if examples.dtype == np.uint16:
        return torch.from_numpy(examples.astype(np.int64))
    tensor = torch.from_numpy(np.require(examples, requirements=["C", "W"]))
    return tensor if examples.dtype == np.uint8 else tensor.to(torch.float32)


def as_inputs(stored: torch.Tensor) -> torch.Tensor:
    """What a model takes: pictures `[n, channels, height, width]` in [0, 1]; anything else as it is."""
    if stored.dtype != torch.uint8:
        return stored
    return (stored.unsqueeze(1) if stored.dim() == 3 else stored).to(torch.float32).div_(255.0)


def input_shape_of(examples: np.ndarray) -> tuple[int, ...]:
    """The shape of one input of stored examples: images get a channel axis."""
    shape = examples.shape[1:]
    return (1, *shape) if examples.dtype == np.uint8 and len(shape) == 2 else tuple(shape)


@dataclass(frozen=True)
class OwnDataSource:
    """One client's examples as a single task: its own data split into support and query (Chen et al. 2018).

    Labels are the data set's class ids, so that all clients share one head; ways, shots and queries do not apply. Where
    the data set has a column `apart`, all examples of one code (one text, patient or recording) are on one side.

    Attributes:
        source: the client's examples.
        support_fraction: share of the examples that is support, in (0, 1).
        num_classes: of the data set: the outputs of the head.
    """

    source: ClassSource
    support_fraction: float
    num_classes: int

    def sample(self, shape: EpisodeShape, rng: np.random.Generator) -> Episode:
        """Draw a fresh split.

        Raises:
            DataError: the client has fewer than two examples, or all of them have one code of `apart`.
        """
        rows = np.concatenate([self.source.rows[int(c)] for c in self.source.classes] or [np.zeros(0, dtype=np.int64)])
        labels = np.repeat(self.source.classes, [len(self.source.rows[int(c)]) for c in self.source.classes])
        apart = self.source.rules.apart
        if apart is None:
            support, query = split_support_query(len(rows), self.support_fraction, rng, self.source.name)
        else:
            support, query = split_codes(apart[rows], self.support_fraction, rng, self.source.name)
        halves = [Batch(self.source.inputs(rows[part]), torch.from_numpy(labels[part])) for part in (support, query)]
        return Episode(halves[0], halves[1], torch.arange(self.num_classes))


def split_support_query(
    count: int, support_fraction: float, rng: np.random.Generator, client: str
) -> tuple[np.ndarray, np.ndarray]:
    """Split `count` examples at random into disjoint support and query positions, neither of them empty.

    Raises:
        DataError: fewer than two examples.
    """
    if count < 2:
        raise DataError(
            f"{called(client)} has {count} examples: support and query need one each. Use a coarser partition"
        )
    order = rng.permutation(count)
    cut = min(count - 1, max(1, round(count * support_fraction)))
    return order[:cut], order[cut:]


def split_codes(
    codes: np.ndarray, support_fraction: float, rng: np.random.Generator, client: str
) -> tuple[np.ndarray, np.ndarray]:
    """As `split_support_query`, by whole codes: no code is on both sides.

    Codes come in a random order, and the first of them are the support: as many as give the number of examples nearest
    to the fraction, one at least and not all.

    Args:
        codes: `[n]`, of each example.
        support_fraction: share of the examples that is support, in (0, 1).
        rng: of the order.
        client: for errors.

    Raises:
        DataError: fewer than two codes.
    """
    found, counts = np.unique(codes, return_counts=True)
    if len(found) < 2:
        raise DataError(
            f"{called(client)} has {len(codes)} examples of {len(found)} text, patient or recording, and support and "
            "query need one each that they do not share: use a coarser partition"
        )
    order = rng.permutation(len(found))
    reached = np.cumsum(counts[order])[:-1]
    cut = int(np.abs(reached - support_fraction * len(codes)).argmin()) + 1
    mixed = rng.permutation(len(codes))
    chosen = np.isin(codes[mixed], found[order[:cut]])
    return mixed[chosen], mixed[~chosen]


def frozen_episodes(source: TaskSource, shape: EpisodeShape, count: int, seed: int, client: str) -> list[Episode]:
    """A client's test episodes: the same for every call, and the i-th the same whatever the count.

    Args:
        source: of the client.
        shape: of the episodes.
        count: how many.
        seed: of test episodes, apart from a run's seed.
        client: what tells the client's draws from another's; its name, since its id depends on the partition.
    """
    rng = numpy_generator(seed, 0, SERVER, f"evaluation/{client}")
    return [source.sample(shape, rng) for _ in range(count)]
