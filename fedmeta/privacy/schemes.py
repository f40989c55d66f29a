"""Sampling schemes as types: what a sampler really did, told to the accountant by the sampler itself."""

from dataclasses import dataclass
from typing import Any, ClassVar

from fedmeta.errors import ConfigurationError
from fedmeta.parameters import require_number
from fedmeta.privacy.units import Adjacency


def _check_rate(name: str, rate: float) -> None:
    require_number(name, rate)
    if not 0 < rate <= 1:
        raise ConfigurationError(f"{name} = {rate} must be > 0, <= 1: it is a probability of taking part")


@dataclass(frozen=True)
class Poisson:
    """Each unit takes part by a coin of its own, empty draws allowed, the denominator fixed, participation hidden.

    Args:
        rate: probability of taking part, in (0, 1].
    """

    rate: float
    natural: ClassVar[Adjacency] = Adjacency.ADD_REMOVE
    adjacencies: ClassVar[frozenset[Adjacency]] = frozenset({Adjacency.ADD_REMOVE, Adjacency.REPLACE_SPECIAL})

    def __post_init__(self) -> None:
        _check_rate("rate", self.rate)

    def __str__(self) -> str:
        return f"Poisson, rate {self.rate:g}"


@dataclass(frozen=True)
class TruncatedPoisson:
    """Poisson draws of more than `cap` units are cut to a uniformly random `cap` of them.

    Plain Poisson accounting would be wrong here: with the cap reached, one unit more pushes another one out.

    Args:
        population: units there are, >= 1.
        rate: probability of taking part, in (0, 1].
        cap: most units in a draw, >= 1.
    """

    population: int
    rate: float
    cap: int
    natural: ClassVar[Adjacency] = Adjacency.ADD_REMOVE
    adjacencies: ClassVar[frozenset[Adjacency]] = frozenset({Adjacency.ADD_REMOVE})

    def __post_init__(self) -> None:
        _check_rate("rate", self.rate)
        require_number("population", self.population, whole=True)
        require_number("cap", self.cap, whole=True)
        if self.population < 1 or self.cap < 1:
            raise ConfigurationError(f"population = {self.population} and cap = {self.cap} must be >= 1")

    def __str__(self) -> str:
        return f"Poisson, rate {self.rate:g}, at most {self.cap} of {self.population}"


@dataclass(frozen=True)
class WithoutReplacement:
    """A uniformly random `drawn` of `population` units: what most federated samplers do.

    Args:
        population: units there are, public.
        drawn: units a draw, 1 <= drawn <= population.
    """

    population: int
    drawn: int
    natural: ClassVar[Adjacency] = Adjacency.REPLACE_ONE
    adjacencies: ClassVar[frozenset[Adjacency]] = frozenset({Adjacency.REPLACE_ONE})

    def __post_init__(self) -> None:
        require_number("population", self.population, whole=True)
        require_number("drawn", self.drawn, whole=True)
        if not 1 <= self.drawn <= self.population:
            raise ConfigurationError(f"drawn = {self.drawn} must be >= 1, <= population = {self.population}")

    def __str__(self) -> str:
        return f"{self.drawn} of {self.population} without replacement"


@dataclass(frozen=True)
class TwoStage:
    """Clients by Poisson coins, then each client's tasks by Poisson coins, for the task as unit.

    The product of the rates is not the rate of this scheme: given that the client is out, its other tasks are out too.

    Args:
        client_rate: probability that a client takes part in a round, in (0, 1].
        task_rate: probability that a task takes part in a step of its client, in (0, 1].
        steps: noised steps of a client in one round, >= 1.
    """

    client_rate: float
    task_rate: float
    steps: int = 1
    natural: ClassVar[Adjacency] = Adjacency.ADD_REMOVE

    @property
    def adjacencies(self) -> frozenset[Adjacency]:
        """A task may be replaced by another where all tasks of a client take part: clients are drawn as they were."""
        return frozenset(Adjacency) if self.task_rate == 1 else frozenset(Adjacency) - {Adjacency.REPLACE_ONE}

    def __post_init__(self) -> None:
        _check_rate("client_rate", self.client_rate)
        _check_rate("task_rate", self.task_rate)
        require_number("steps", self.steps, whole=True)
        if self.steps < 1:
            raise ConfigurationError(f"steps = {self.steps} must be >= 1")

    def __str__(self) -> str:
        tasks = f"their tasks at rate {self.task_rate:g}" if self.task_rate < 1 else "all tasks of theirs"
        steps = f", {self.steps} steps a round" if self.steps > 1 else ""
        return f"clients at rate {self.client_rate:g}, then {tasks}{steps}"


@dataclass(frozen=True)
class NoAmplification:
    """Everybody takes part, or whoever looks sees who does: no randomness of sampling helps."""

    natural: ClassVar[Adjacency] = Adjacency.REPLACE_ONE
    adjacencies: ClassVar[frozenset[Adjacency]] = frozenset(Adjacency)

    def __str__(self) -> str:
        return "no amplification by sampling"


Scheme = Poisson | TruncatedPoisson | WithoutReplacement | TwoStage | NoAmplification

_KINDS: dict[str, type] = {
    "poisson": Poisson,
    "truncated-poisson": TruncatedPoisson,
    "without-replacement": WithoutReplacement,
    "two-stage": TwoStage,
    "none": NoAmplification,
}


def scheme_to_json(scheme: Scheme) -> dict[str, Any]:
    """A JSON object that `scheme_from_json` reads.

    >>> scheme_to_json(Poisson(0.1))
    {'kind': 'poisson', 'rate': 0.1}
    """
    kind = next(name for name, cls in _KINDS.items() if type(scheme) is cls)
    return {"kind": kind, **vars(scheme)}


def scheme_from_json(data: dict[str, Any]) -> Scheme:
    """The inverse of `scheme_to_json`.

    Raises:
        KeyError, TypeError: not such an object.
    """
    return _KINDS[data["kind"]](**{key: value for key, value in data.items() if key != "kind"})
