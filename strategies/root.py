"""The server's own update on root tasks, which FLTrust compares clients with (Cao et al. 2021, section IV-A).

A meta-learner's root data set is a set of *tasks*: the server trains as a client does, with the same learner, steps and
optimiser, on tasks of classes that no client trains on and no test uses: those of the validation clients.
"""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.seeding import SERVER, numpy_generator
from fedmeta.tasks import Episode
from fedmeta.workload import Workload


@dataclass(frozen=True)
class RootTasks:
    """The server as a trusted client; needs the data set where the server runs."""

    experiment: Experiment

    @cached_property
    def workload(self) -> Workload:
        """Data, learner and parameters, as clients build them."""
        return Workload(self.experiment)

    @cached_property
    def clients(self) -> list[int]:
        """The validation clients, whose tasks these are."""
        return [client.id for client in self.workload.federation.clients if client.role == "validation"]

    def check(self) -> None:
        """Refuse a partition without validation clients.

        Raises:
            ConfigurationError: it makes none.
        """
        if not self.clients:
            raise ConfigurationError(
                "server.root = 'validation' but the partition makes no validation clients, whose classes root tasks "
                "come from: set partition.validation_clients to 1 or more"
            )

    def update(self, model: Tensor, round: int) -> Tensor:
        """`[D]`, what a client with the root tasks would send in a round that starts from `model`."""
        return self.workload.local_update(model, lambda _, step, count: self._draw(round, step, count), round)

    def _draw(self, round: int, step: int, count: int) -> list[Episode]:
        """Tasks of validation clients drawn at random, from the seed, the round and the step."""
        rng = numpy_generator(self.experiment.seed, round, SERVER, f"root/{step}")
        chosen = [self.clients[int(index)] for index in rng.integers(len(self.clients), size=count)]
        return [self.workload.source(client).sample(self.workload.training_shape, rng) for client in chosen]
