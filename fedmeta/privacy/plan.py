"""From an experiment to what is released: the event of a round, and the noise multiplier, given or calibrated."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.privacy.accounting import calibrate, check_bounded
from fedmeta.privacy.distributed.design import noised_size, shared_noise
from fedmeta.privacy.events import Event, Gaussian
from fedmeta.privacy.schemes import NoAmplification, Poisson, Scheme, TwoStage
from fedmeta.privacy.units import Adjacency, Unit
from fedmeta.workload import workload_from_json


class PrivateSampler(Protocol):
    """What a client sampler must say of itself before its draws can be accounted."""

    def scheme(self, population: int) -> Scheme:
        """How it draws clients, as a type."""
        ...

    def marginal(self, population: int) -> float:
        """An upper bound of the probability that a client takes part in a round."""
        ...

    def expected(self, population: int) -> float:
        """The fixed cohort by which sums are divided, whoever came; > 0."""
        ...


@dataclass(frozen=True)
class Plan:
    """What an experiment releases.

    Attributes:
        unit: whose privacy.
        local: noise is added by the clients, each the whole of it or a share; each has an account of its own.
        event: of one round: of all clients together, or of one client that takes part.
        delta: of the guarantee.
        accountant: whose bound counts.
    """

    unit: Unit
    local: bool
    event: Event
    delta: float
    accountant: str

    @property
    def noise_multiplier(self) -> float:
        """z: standard deviation of the noise over the clip norm."""
        return self.event.mechanism.noise_multiplier


def local_plan(experiment: Experiment) -> Plan:
    """The plan where clients add the noise: a function of the experiment alone, so that a client need trust no server.

    The server sees who takes part, so that no draw of clients amplifies. A calibrated multiplier serves a client that
    takes part in every round. With distributed noise a release is the sum of its group, noised by the fewest of that.
    """
    return _local_plan(experiment.to_json())


@functools.lru_cache(maxsize=8)
def _local_plan(text: str) -> Plan:
    experiment = workload_from_json(text).experiment
    privacy, client = experiment.privacy, experiment.client
    if privacy.placement == "distributed":
        size = noised_size(experiment, workload_from_json(text).spec.size())

        def shared(z: float) -> Event:
            return Event(shared_noise(experiment, size, z).mechanism, NoAmplification(), Adjacency.REPLACE_ONE)

        return _with_noise(experiment, shared)
    scheme: Scheme = NoAmplification()
    adjacency: Adjacency | None = Adjacency.REPLACE_ONE
    if privacy.unit == "client":
        count = 1
    elif privacy.unit == "task":
        count = client.steps
        if privacy.task_pool is not None:
            scheme, adjacency = Poisson(client.tasks_per_step / privacy.task_pool), None
    else:
        # An example may be in every task of every step; each looks at it so many times.
        count = client.steps * client.tasks_per_step * _example_releases(text)
    return _with_noise(experiment, lambda z: Event(Gaussian(z), scheme, adjacency, count))


def _example_releases(text: str) -> int:
    learner = workload_from_json(text).learner
    if getattr(learner.model, "transductive", False):
        raise ConfigurationError(
            "privacy.unit = 'example' is not available with this model: it mixes the examples of a batch, so that "
            "clipping single gradients bounds nothing. Use group normalisation or none"
        )
    return int(learner.example_releases)  # type: ignore[attr-defined]


def central_plan(experiment: Experiment, sampler: PrivateSampler, population: int) -> Plan:
    """The plan where the server adds the noise; the sampler says how clients are drawn from `population`."""
    privacy, client = experiment.privacy, experiment.client
    if not hasattr(sampler, "scheme"):
        raise ConfigurationError(
            f"server.sampling.name = '{experiment.server.sampling.name}' does not say how it draws (it has no method "
            "`scheme`), so that its rounds cannot be accounted. Use fixed, poisson or capped_poisson"
        )
    if privacy.unit == "client":
        return _with_noise(experiment, lambda z: Event(Gaussian(z), sampler.scheme(population)))
    rate = sampler.marginal(population)
    if privacy.task_pool is None:
        # Every step has the same number of fresh tasks: one can be exchanged, none added.
        return _with_noise(experiment, lambda z: Event(Gaussian(z), TwoStage(rate, 1.0), Adjacency.REPLACE_ONE))
    stages = TwoStage(rate, client.tasks_per_step / privacy.task_pool)
    return _with_noise(experiment, lambda z: Event(Gaussian(z), stages))


def _with_noise(experiment: Experiment, at: Callable[[float], Event]) -> Plan:
    """The plan of an event by its noise multiplier."""
    privacy, rounds = experiment.privacy, experiment.server.rounds

    def in_rounds(count: int, z: float) -> list[Event]:
        event = at(z)
        return [replace(event, count=count * event.count)]

    z = privacy.noise_multiplier
    if z is None:
        assert privacy.target_epsilon is not None
        z = calibrate(
            lambda z: in_rounds(rounds, z),
            privacy.target_epsilon,
            privacy.delta,
            privacy.accountant,
        )
    else:
        # A budget ends the run where its bound still holds; without one all rounds are played.
        whole = min(rounds, 1) if privacy.budget is not None else rounds
        check_bounded(in_rounds(whole, z), privacy.delta, privacy.accountant)
    return Plan(Unit(privacy.unit), privacy.placement != "central", at(z), privacy.delta, privacy.accountant)
