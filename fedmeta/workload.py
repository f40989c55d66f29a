"""From an experiment to the objects it names: data, learner and parameter specification, built once a process."""

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from fedmeta.adversarial.check import objective_of
from fedmeta.cohort import Gradient, LocalPlan, Sample
from fedmeta.data import DATASETS
from fedmeta.data.base import ClientInfo, EpisodeShape, Federation, TaskSource
from fedmeta.data.delivered import delivered
from fedmeta.data.episodes import ClassSource, OwnDataSource, frozen_episodes
from fedmeta.data.node import NodeData
from fedmeta.data.resident import on_device
from fedmeta.device import device_of
from fedmeta.division import divide, federation_of_node
from fedmeta.errors import ConfigurationError, DataError
from fedmeta.evaluation import nearest_neighbour
from fedmeta.execution import resolve, to_device
from fedmeta.experiment import Experiment
from fedmeta.fedex_section import configured
from fedmeta.learners import LEARNERS, make_learner
from fedmeta.learners.base import MetaLearner, personal_prefix
from fedmeta.memory import available_bytes, fitting_tasks
from fedmeta.models import MODELS, make_model
from fedmeta.optimisers import OPTIMISERS, schedule
from fedmeta.parameters import parameters_of
from fedmeta.params import Params, ParamSpec
from fedmeta.seeding import SERVER, numpy_generator, torch_generator
from fedmeta.tasks import Baseline, Episode
from fedmeta.training import train_cohort


@dataclass(frozen=True)
class Workload:
    """What both sides build from an experiment. The model needs no data, so a server without any can build it.

    Attributes:
        experiment: what to build.
        node: on a node with data of its own, where these are; None where clients share out the experiment's data set.
    """

    experiment: Experiment
    node: NodeData | None = None

    @cached_property
    def spec_of_data(self) -> Any:
        """The data set's declaration: `task`, `input_shape` and `classes`, without its files."""
        return DATASETS.make(self.experiment.data.name, **self.experiment.data.parameters)

    @cached_property
    def learner(self) -> MetaLearner:
        """The learner around the model."""
        learner = self.experiment.learner
        return make_learner(learner.name, self.model, task=self.spec_of_data.task, **learner.parameters)

    @cached_property
    def model(self) -> nn.Module:
        """The model, whose input and output sizes follow from data and task."""
        experiment = self.experiment
        dataset = self.spec_of_data
        head = LEARNERS.get(experiment.learner.name).head  # type: ignore[attr-defined]
        if self.shares_classes and dataset.classes == 0:
            raise ConfigurationError(
                f"data.classes = 0, and learner '{experiment.learner.name}' with task.kind = '{experiment.task.kind}' "
                "has one head of all clients' classes: set data.classes to their number"
            )
        if dataset.task.kind == "control":
            outputs = dataset.outputs
        elif dataset.task.kind == "regression" or experiment.task.kind == "own" or head == "classes":
            outputs = max(dataset.classes, 1)
        else:
            outputs = experiment.task.ways if head == "ways" else None
        derived = {"input_shape": dataset.input_shape, "ways": outputs}
        if "codes" in parameters_of(MODELS.get(experiment.model.name)):
            derived["codes"] = self._codes(dataset)
        model = make_model(experiment.model.name, **derived, **experiment.model.parameters)
        network: nn.Module = dataset.network(model) if hasattr(dataset, "network") else model
        return network

    def _codes(self, dataset: Any) -> int:
        """How many whole numbers an input may be, for a model that embeds them."""
        codes: int | None = getattr(dataset, "codes", None)
        if codes is None:
            raise ConfigurationError(
                f"model '{self.experiment.model.name}' embeds numbered items, and data '{self.experiment.data.name}' "
                "has none: choose another model"
            )
        return codes

    @property
    def shares_classes(self) -> bool:
        """Whether all clients number their classes alike, since one head serves them all."""
        head = LEARNERS.get(self.experiment.learner.name).head  # type: ignore[attr-defined]
        classification = self.spec_of_data.task.kind == "classification"
        return classification and (self.experiment.task.kind == "own" or head == "classes")

    @cached_property
    def initial(self) -> Params:
        """The initial meta-parameters, from the seed alone: every process builds the same."""
        return self.learner.init(torch_generator(self.experiment.seed, 0, SERVER, "initialisation"))

    @cached_property
    def spec(self) -> ParamSpec:
        """Order, shapes and roles of the parameters; a learner's own personal entries are so whatever is set."""
        sharing, own = self.experiment.sharing, personal_prefix(self.learner)
        personal = sharing.personal if own is None else (*sharing.personal, own + "*")
        return ParamSpec.of(self.initial, personal=personal, frozen=sharing.frozen)

    def initial_vector(self) -> torch.Tensor:
        """The shared initial parameters, `[D]`."""
        return self.spec.flatten(self.initial)

    def first_personal(self, shared: torch.Tensor) -> torch.Tensor:
        """`[P]`, the personal parameters of a client that has none yet and is sent the shared ones, `[D]`."""
        start = getattr(self.learner, "personal_start", None)
        if start is None:
            return self.spec.flatten(self.initial, "personal")
        known = {**self.initial, **self.spec.unflatten(shared.cpu())}
        return self.spec.flatten({**known, **start(known)}, "personal")

    @cached_property
    def dataset(self) -> Any:
        """The loaded data set: one that was delivered to this process, or read from its files.

        Raises:
            DataError: files that are missing or damaged.
        """
        data = self.experiment.data
        found = delivered(data.name, data.parameters)
        return found if found is not None else DATASETS.make(data.name, **data.parameters).load()

    @cached_property
    def federation(self) -> Federation:
        """The data divided among clients; loads the data set. On a node with data of its own, that node alone.

        Raises:
            DataError: data that are missing, damaged, or do not fit the experiment.
            ConfigurationError: a partition, or `task.kind = "own"`, that these data cannot have.
        """
        if self.node is not None:
            return federation_of_node(self.experiment, self.node, self.spec_of_data, self.shares_classes)
        return divide(self.experiment, self.dataset)

    def info(self, client: int) -> ClientInfo:
        """Name and role of a client, by id."""
        return self.node.info if self.node is not None else self.federation.clients[client]

    def source(self, client: int) -> TaskSource:
        """The tasks of one client: episodes, or its own data as one task."""
        found = self.federation.source(client)
        task = self.experiment.task
        if task.kind == "own" and isinstance(found, ClassSource):
            return OwnDataSource(found, task.support_fraction, self.spec_of_data.classes)
        return found

    def training_source(self, client: int) -> TaskSource:
        """As `source`, where a client trains: on a GPU its class data lie there."""
        return on_device(self.source(client), device_of(self.experiment), self._resident)

    @cached_property
    def _resident(self) -> dict[int, torch.Tensor]:
        return {}

    def frozen_episodes(self, client: int, count: int) -> list[Episode]:
        """A client's test episodes. They depend on its role and name, not on its id, which shifts with the partition:
        a federated run and its centralised twin are judged on the same."""
        info = self.info(client)
        seed = self.experiment.evaluation.seed
        return frozen_episodes(self.source(client), self.evaluation_shape, count, seed, f"{info.role}/{info.name}")

    @cached_property
    def baselines(self) -> Mapping[str, Baseline]:
        """What learns nothing, by name: the data set's own, else pixel nearest neighbour where there are classes."""
        own: Mapping[str, Baseline] | None = getattr(self.federation, "baselines", None)
        if own is not None:
            return own
        return {"pixel nearest neighbour": nearest_neighbour} if self.learner.task.kind == "classification" else {}

    def weight(self, client: int) -> int:
        """What a client's update stands for: the tasks it saw, or its examples where all of them are one task."""
        source = self.source(client)
        if isinstance(source, OwnDataSource):
            return sum(len(rows) for rows in source.source.rows.values())
        return self.experiment.client.steps * self.experiment.client.tasks_per_step

    @cached_property
    def tasks_at_once(self) -> int | None:
        """Tasks batched under vmap: `client.chunk_size`, or what one task's memory lets expect; None for all."""
        experiment = self.experiment
        device = device_of(experiment)
        if experiment.client.chunk_size != "auto":
            return experiment.client.chunk_size
        if resolve(experiment.client.execution, self.learner.model, device) == "loop":
            return None
        client = next((info.id for info in self.federation.clients if info.role == "train"), None)
        if client is None:
            return None
        try:
            episode = self.source(client).sample(self.training_shape, numpy_generator(0, 0, client, "memory"))
        except DataError:  # a client's own step says what is wrong
            return None
        params = {name: value.to(device) for name, value in self.initial.items()}
        share = min(1.0, experiment.engine.gpus_per_client or 1.0)
        episode = to_device(episode, device)
        gradient = self.adversarial_gradient(experiment.server.rounds) or self.learner.meta_gradient
        return fitting_tasks(lambda: gradient(params, episode), available_bytes(device, share))

    def adversarial_gradient(self, round: int) -> Gradient | None:
        """What takes the place of the learner's `meta_gradient` in a round, counted from 1; None where nothing does."""
        objective = objective_of(self.experiment)
        return None if objective is None else objective.gradient(self.learner, self.experiment, round)

    def local_plan(self, round: int, adversarial: bool = False) -> LocalPlan:
        """The client's part of the experiment in a round, counted from 1; `adversarial` for one that trains so."""
        client = self.experiment.client
        return LocalPlan(
            steps=client.steps,
            tasks_per_step=client.tasks_per_step,
            optimiser=OPTIMISERS.make(client.optimiser.name, where="client.optimiser", **client.optimiser.parameters),
            scale=schedule(client.schedule, self.experiment.server.progress(round)),
            execution=client.execution,
            chunk_size=self.tasks_at_once,
            precision=client.precision,
            objective=self.adversarial_gradient(round) if adversarial else None,
        )

    def local_update(self, model: torch.Tensor, sample: Sample, round: int) -> torch.Tensor:
        """`[D]`, what one client with initial personal parameters would send in a round that starts from `model`.

        Args:
            model: `[D]`, the shared parameters.
            sample: draws its tasks.
            round: counted from 1.

        Raises:
            Exception: what drawing or training raises.
        """
        spec = self.spec
        result = train_cohort(
            self.learner,
            spec,
            model,
            1,
            sample,
            self.local_plan(round, adversarial=True),
            personal=self.first_personal(model)[None].to(model.device),
            frozen={entry.name: self.initial[entry.name] for entry in spec.select("frozen")},
        )
        if result.failures:
            raise result.failures[0]
        return result.updates[0]

    def configured(self, index: int) -> "Workload":
        """The workload of one of the experiment's configurations, on the same data."""
        if index not in self._configured:
            found = replace(self, experiment=configured(self.experiment, index))
            with contextlib.suppress(DataError):  # a server may have none, and asks for none
                vars(found)["federation"] = self.federation  # data are loaded and divided once
            self._configured[index] = found
        return self._configured[index]

    @cached_property
    def _configured(self) -> "dict[int, Workload]":
        return {}

    @property
    def training_shape(self) -> EpisodeShape:
        """The episodes that clients train on."""
        task = self.experiment.task
        return EpisodeShape(task.ways, task.shots, task.queries)

    @property
    def evaluation_shape(self) -> EpisodeShape:
        """The episodes that models are judged on: as in training where not set."""
        task, judged = self.experiment.task, self.experiment.evaluation
        return EpisodeShape(
            task.ways if judged.ways is None else judged.ways,
            task.shots if judged.shots is None else judged.shots,
            task.queries if judged.queries is None else judged.queries,
        )


def workload_from_json(text: str, node: NodeData | None = None) -> Workload:
    """The workload of a resolved experiment as JSON; the same object for the same arguments, so that data load once."""
    return _workload(text, node)


@functools.lru_cache(maxsize=2)
def _workload(text: str, node: NodeData | None) -> Workload:
    return Workload(Experiment.model_validate_json(text), node)
