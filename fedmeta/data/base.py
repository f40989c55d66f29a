"""The contracts of data: a data set, its division among clients, and one client's source of episodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from fedmeta.tasks import Episode, Task

ClientRole = Literal["train", "validation", "test", "pooled"]
"""`pooled` is the one client that holds the data of all test clients, for episodes across them."""


@dataclass(frozen=True)
class EpisodeShape:
    """How large episodes are.

    Attributes:
        ways: classes an episode; 1 for regression.
        shots: support examples a class.
        queries: query examples a class.
    """

    ways: int
    shots: int
    queries: int


@dataclass(frozen=True)
class ClientInfo:
    """One client of a federation.

    Attributes:
        id: 0, 1, 2, ... stable for a configuration: the partition id of its Flower node.
        name: readable, such as `Korean` or `Greek/writer 3`.
        role: what the client serves for.
        lacks: patterns of the parameters that its data cannot train, such as an encoder of a modality that it does not
            own: its update says nothing of them, and no average counts it there. The server knows this of every client.
    """

    id: int
    name: str
    role: ClientRole
    lacks: tuple[str, ...] = ()


class TaskSource(Protocol):
    """One client's tasks."""

    def sample(self, shape: EpisodeShape, rng: np.random.Generator) -> Episode:
        """Draw one episode.

        Raises:
            DataError: the client cannot give such an episode; names client, class, needed and available.
        """
        ...


class Federation(Protocol):
    """A data set divided among clients. Train, validation and test clients are disjoint.

    One with `baselines`, a mapping of names to `fedmeta.tasks.Baseline`, has these stand beside every learner in its
    tables; without, or where it is None, tasks with classes have pixel nearest neighbour.
    """

    @property
    def clients(self) -> Sequence[ClientInfo]:
        """The clients, by ascending id."""
        ...

    def source(self, client: int) -> TaskSource:
        """The tasks of one client, by id."""
        ...


class Dataset(Protocol):
    """A loaded data set.

    One whose task kind is `control` has `outputs` too, the numbers that the model gives. One with `network(model)` puts
    the experiment's model into a network of its own, such as a policy into its environment; a learner gets that.

    Attributes:
        task: how outputs are judged.
        input_shape: of one example, without the batch axis.
        classes: number of classes of the whole data set; 0 for regression.

    One whose inputs are whole numbers (items) says as `codes` how many there are. One whose inputs are texts gives them
    back by `words(x)`, for explanations. One with a `trigger`
    (`fedmeta.attacks.triggers.Trigger`) offers that to backdoors as `attack.method.trigger = "own"`.
    """

    task: Task
    input_shape: tuple[int, ...]
    classes: int

    def federate(self, partition: Any, seed: int) -> Federation:
        """Divide among clients.

        Args:
            partition: an object of the `PARTITIONS` registry.
            seed: of the draws of the division, and nothing else.

        Raises:
            ConfigurationError: a partition that this data set cannot have.
        """
        ...
