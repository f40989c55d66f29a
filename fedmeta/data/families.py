"""Data without examples, such as environments: every client draws tasks without end, from a family of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, Protocol

import numpy as np

from fedmeta.data import PARTITIONS
from fedmeta.data.base import ClientInfo, ClientRole, EpisodeShape, TaskSource
from fedmeta.data.partitions import IID, SEED, Centralised, Dirichlet
from fedmeta.errors import ConfigurationError
from fedmeta.parameters import parameter
from fedmeta.seeding import SERVER, numpy_generator
from fedmeta.tasks import Episode


@dataclass(frozen=True)
class ByFamily:
    """Every client has its own family of tasks: goals of a neighbourhood, a machine's masses."""

    min_examples: ClassVar[int] = 1
    min_classes: ClassVar[int] = 1

    clients: int = parameter(20, ge=1, doc="training clients", unit="clients")
    validation_clients: int = parameter(2, ge=0, doc="validation clients", unit="clients")
    test_clients: int = parameter(5, ge=1, doc="test clients", unit="clients")
    pooled: bool = parameter(True, doc="one more client, each of whose tasks is of some test client's family")
    seed: int | None = parameter(None, ge=0, doc=SEED)

    def shares(self, dataset: Any, rng: np.random.Generator) -> NoReturn:
        """Refused: examples of classes are in no family.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "partition.name = 'family' is for data that draw tasks, such as nav2d; these have examples of classes: use "
            "iid, dirichlet or column"
        )


class Family(Protocol):
    """A distribution over tasks."""

    def sample(self, shape: EpisodeShape, rng: np.random.Generator) -> Episode:
        """Draw one task."""
        ...


class FamilyData(Protocol):
    """What draws families."""

    def family(self, rng: np.random.Generator) -> Family:
        """One client's family of tasks."""
        ...

    def everything(self) -> Family:
        """All tasks as one family."""
        ...


@dataclass(frozen=True)
class FamilyFederation:
    """Clients that draw their tasks.

    Attributes:
        clients: by ascending id.
        families: client id -> its tasks.
    """

    clients: Sequence[ClientInfo]
    families: Sequence[Family]

    def source(self, client: int) -> TaskSource:
        """The tasks of one client."""
        return self.families[client]


@dataclass(frozen=True)
class Mixture:
    """Tasks, each of one of several families, drawn evenly."""

    families: Sequence[Family]

    def sample(self, shape: EpisodeShape, rng: np.random.Generator) -> Episode:
        """Draw a family, then a task of it."""
        return self.families[int(rng.integers(len(self.families)))].sample(shape, rng)


def federate_families(data: FamilyData, partition: Any, seed: int, name: str) -> FamilyFederation:
    """Clients of a partition, by id: training, validation, test, pooled.

    The family of a validation or test client depends on its number alone, so that runs of any seed are judged on the
    same clients; `seed` draws those of the training clients. Under `iid` and `centralised` every client has all tasks.

    Raises:
        ConfigurationError: a partition that divides examples.
    """
    own = isinstance(partition, ByFamily)
    if isinstance(partition, Centralised):
        train = 1
    elif own or (isinstance(partition, IID) and not isinstance(partition, Dirichlet)):
        train = partition.clients
    else:
        raise ConfigurationError(
            f"data '{name}' draws tasks and has no examples for partition '{PARTITIONS.name_of(partition)}': set "
            "partition.name to family (every client its own), iid (all alike) or centralised"
        )
    wanted: dict[ClientRole, int] = {
        "train": train,
        "validation": partition.validation_clients or 0,
        "test": partition.test_clients,
    }
    roles: list[tuple[ClientRole, int]] = [(role, i) for role, count in wanted.items() for i in range(count)]
    families: list[Family] = []
    for role, i in roles:
        rng = numpy_generator(seed if role == "train" else 0, 0, SERVER, f"family/{name}/{role}/{i}")
        families.append(data.family(rng) if own else data.everything())
    if partition.pooled:
        families.append(Mixture([family for (role, _), family in zip(roles, families, strict=True) if role == "test"]))
        roles.append(("pooled", 0))
    clients = tuple(ClientInfo(i, f"{name} {role} {k}", role) for i, (role, k) in enumerate(roles))
    return FamilyFederation(clients, tuple(families))
