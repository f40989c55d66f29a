"""What is searched: keys of an experiment with their ranges, checked against the schema before any trial."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.experiment_file import parse_override
from fedmeta.parameters import parameters_of
from fedmeta.workload import Workload
from server.configuration import ALL_COMPONENTS, load

KINDS = "log:LOW:HIGH, float:LOW:HIGH, int:LOW:HIGH, int:LOW:HIGH:STEP, logint:LOW:HIGH or choice:A,B,C"

JUDGE = ("seed", "name", "data", "partition", "evaluation", "attack.clean", "engine", "deployment", "tracking")
"""Keys that decide who judges and on what, or nothing that a score depends on."""


@dataclass(frozen=True)
class Dimension:
    """One key and the values that it may take.

    Attributes:
        key: dotted, of the experiment.
        kind: `log`, `float`, `int`, `logint` or `choice`.
        low, high: both included; None for choices.
        step: between integers.
        choices: the values of `choice`.
    """

    key: str
    kind: str
    low: float | None = None
    high: float | None = None
    step: int = 1
    choices: tuple[Any, ...] = ()

    @property
    def probes(self) -> tuple[Any, ...]:
        """Values that tell whether all are allowed: both ends, or every choice."""
        return self.choices if self.kind == "choice" else (self.low, self.high)

    def distribution(self) -> Any:
        """As optuna draws from it."""
        from optuna import distributions

        if self.kind == "choice":
            return distributions.CategoricalDistribution(self.choices)
        assert self.low is not None and self.high is not None
        if self.kind in ("int", "logint"):
            low, high = int(self.low), int(self.high)
            return distributions.IntDistribution(low, high, log=self.kind == "logint", step=self.step)
        return distributions.FloatDistribution(self.low, self.high, log=self.kind == "log")

    def __str__(self) -> str:
        if self.kind == "choice":
            return f"{self.key}=choice:{','.join(map(str, self.choices))}"
        step = f":{self.step}" if self.step != 1 else ""
        return f"{self.key}={self.kind}:{self.low:g}:{self.high:g}{step}"


def parse_dimension(text: str) -> Dimension:
    """Read `KEY=KIND:...`.

    Raises:
        ConfigurationError: it is not of that form, with what is.

    >>> str(parse_dimension("learner.inner_lr=log:.01:1")), parse_dimension("a.b=choice:16,true,x").choices
    ('learner.inner_lr=log:0.01:1', (16, True, 'x'))
    """
    key, equals, rest = text.partition("=")
    kind, colon, given = rest.partition(":")
    key, kind = key.strip(), kind.strip()
    if not (key and equals and colon):
        raise ConfigurationError(f"--search {text}: give KEY=KIND:VALUES, where KIND:VALUES is {KINDS}")
    if kind == "choice":
        choices = tuple(parse_override(f"x={value}")[1] for value in given.split(","))
        if len(set(map(repr, choices))) < 2 or "" in choices:
            raise ConfigurationError(f"--search {text}: a choice needs two different values at least")
        return Dimension(key, kind, choices=choices)
    if kind not in ("log", "float", "int", "logint"):
        raise ConfigurationError(f"--search {text}: '{kind}' is no kind of range: {KINDS}")
    number = int if kind in ("int", "logint") else float
    try:
        numbers = [number(part) for part in given.split(":")]
    except ValueError:
        whole = "whole numbers" if number is int else "numbers"
        raise ConfigurationError(f"--search {text}: '{given}' are not {whole}: {KINDS}") from None
    if len(numbers) not in ((2, 3) if kind == "int" else (2,)):
        raise ConfigurationError(f"--search {text}: {len(numbers)} numbers: {KINDS}")
    low, high, step = numbers[0], numbers[1], int(numbers[2]) if len(numbers) == 3 else 1
    if not low < high or (kind.startswith("log") and low <= 0) or step < 1:
        above = "0 < LOW < HIGH" if kind.startswith("log") else "LOW < HIGH, STEP >= 1"
        raise ConfigurationError(f"--search {text}: needs {above}")
    return Dimension(key, kind, low, high, step)


def parse_space(texts: Sequence[str]) -> tuple[Dimension, ...]:
    """All searched keys.

    Raises:
        ConfigurationError: none, or one twice.
    """
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise ConfigurationError(f"search = {texts!r:.80} must be a list of KEY=KIND:VALUES")
    found = tuple(parse_dimension(text) for text in texts)
    keys = [dimension.key for dimension in found]
    if not keys:
        raise ConfigurationError(f"nothing to search: give --search KEY=KIND:VALUES, where KIND:VALUES is {KINDS}")
    if len(set(keys)) < len(keys):
        raise ConfigurationError(f"--search names a key twice: {', '.join(keys)}")
    return found


def experiment_at(base: Experiment, chosen: Mapping[str, Any], seed: int | None = None) -> Experiment:
    """The experiment of a trial. A parameter that the trial's component does not have is left out of it.

    Args:
        base: what stays.
        chosen: searched key -> value.
        seed: of the run; None: the base's.

    Raises:
        ConfigurationError: values that do not go together.
    """
    overrides = dict(chosen)
    for place, registry in ALL_COMPONENTS.items():
        name = chosen.get(f"{place}.name")
        if name is not None:
            known = {"name", *parameters_of(registry.get(str(name)))}
            foreign = [key for key in chosen if key.startswith(f"{place}.") and key[len(place) + 1 :] not in known]
            for key in foreign:
                del overrides[key]
    if seed is not None:
        overrides["seed"] = seed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the base warns of was said when it was loaded
        return load(base, overrides)


def check_space(base: Experiment, space: Sequence[Dimension]) -> list[Experiment]:
    """Refuse a search that cannot be, before its first trial.

    Returns:
        The experiments at the ends of every range, the others keys as in the base.

    Raises:
        ConfigurationError: a key that is none, a value out of bounds, or a key that changes who judges.
    """
    shape, found = Workload(base).evaluation_shape, []
    for dimension in space:
        if any(dimension.key == key or dimension.key.startswith(f"{key}.") for key in JUDGE):
            raise ConfigurationError(
                f"--search {dimension}: '{dimension.key}' is not to be tuned: trials with other data, judges or seeds "
                "cannot be compared. Set it with --set"
            )
        for value in dimension.probes:
            try:
                probe = experiment_at(base, {dimension.key: value})
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"--search {dimension}: {dimension.key} = {value!r} cannot be: {error}"
                ) from None
            if Workload(probe).evaluation_shape != shape:
                raise ConfigurationError(
                    f"--search {dimension}: {dimension.key} = {value!r} changes the tasks that trials are judged on: "
                    "set evaluation.ways, evaluation.shots and evaluation.queries"
                )
            found.append(probe)
    return found
