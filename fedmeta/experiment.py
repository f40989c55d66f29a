"""The experiment schema: one TOML file, validated once, the same for every engine and deployment.

Importing this module loads no torch; validating the components' parameters loads the modules that declare them.
"""

import hashlib
import json
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedmeta.data import DATASETS, PARTITIONS
from fedmeta.errors import ConfigurationError, did_you_mean
from fedmeta.learners import LEARNERS
from fedmeta.models import MODELS
from fedmeta.optimisers import OPTIMISERS
from fedmeta.registry import Registry

LIBRARY_COMPONENTS: dict[str, Registry] = {
    "data": DATASETS,
    "partition": PARTITIONS,
    "model": MODELS,
    "learner": LEARNERS,
    "client.optimiser": OPTIMISERS,
    "server.optimiser": OPTIMISERS,
}
"""Places in an experiment that name a component of the library, and the registry that knows its parameters."""

DERIVED = {"model": ("input_shape", "ways")}
"""Component parameters that follow from the data and the learner; an experiment does not set them."""

Schedule = Literal["constant", "linear", "cosine"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, strict=True)


class Component(BaseModel):
    """A plug-in by name, with its own parameters beside the name."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = Field(description="a registered name; `fedmeta list` prints them")

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters beside the name."""
        return dict(self.model_extra or {})


def _component(name: str, text: str, **parameters: Any) -> Any:
    return Field(default_factory=lambda: Component(name=name, **parameters), description=text)


class TaskSection(_Section):
    """The episodes that clients train on."""

    kind: Literal["episodes", "own"] = Field(
        "episodes",
        description="N-way K-shot episodes, or a client's own data split into support and query (shared classes)",
    )
    ways: int = Field(5, ge=1, description="classes an episode [classes]")
    shots: int = Field(1, ge=1, description="support examples a class [examples]")
    queries: int = Field(5, ge=1, description="query examples a class [examples]")
    support_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of a client's data that is support, for kind = own"
    )


class SharingSection(_Section):
    """Which parameters leave a client."""

    personal: tuple[str, ...] = Field(
        (),
        strict=False,
        description="patterns of parameters that are trained but never leave the client, such as head.*",
    )
    frozen: tuple[str, ...] = Field((), strict=False, description="patterns of parameters that never move")


class ClientSection(_Section):
    """Local meta-training."""

    steps: int = Field(1, ge=1, description="outer steps a client takes a round [steps]")
    tasks_per_step: int = Field(4, ge=1, description="meta-batch: tasks whose gradients are averaged [tasks]")
    optimiser: Component = _component("sgd", "the client's outer optimiser, fresh every round", lr=0.1)
    schedule: Schedule = Field("constant", description="of the client's learning rate over the rounds")
    execution: Literal["auto", "loop", "vmap"] = Field("auto", description="tasks one after the other, or batched")
    chunk_size: int | None = Field(None, ge=1, description="tasks batched at once under vmap; none: all [tasks]")


class ServerSection(_Section):
    """Rounds, sampling and aggregation."""

    rounds: int = Field(20, ge=0, description="federated rounds [rounds]")
    sampling: Component = _component("fixed", "which clients train in a round", clients=8)
    weighting: Literal["uniform", "tasks"] = Field(
        "uniform", description="weight of an update: one, or the tasks it saw"
    )
    aggregator: Component = _component("mean", "how updates become one")
    optimiser: Component = _component("sgd", "what the server does with the aggregate; its state lasts", lr=1.0)
    schedule: Schedule = Field("constant", description="of the server's learning rate over the rounds")
    min_success_fraction: float = Field(
        0.5, ge=0, le=1, description="below this share of valid replies a round is not aggregated"
    )
    timeout: float = Field(3600.0, gt=0, description="longest wait for a round's replies [seconds]")


class EvaluationSection(_Section):
    """How models are judged: on frozen episodes of clients that never train."""

    every: int = Field(10, ge=1, description="validation every so many rounds, and after the last [rounds]")
    validation_episodes: int = Field(20, ge=1, description="episodes of each validation client [episodes]")
    episodes: int = Field(30, ge=1, description="episodes of each test client at the end [episodes]")
    pooled_episodes: int = Field(600, ge=1, description="episodes across all test clients' data at the end [episodes]")
    ways: int | None = Field(None, ge=1, description="none: as in training [classes]")
    shots: int | None = Field(None, ge=1, description="none: as in training [examples]")
    queries: int | None = Field(None, ge=1, description="none: as in training [examples]")
    steps: tuple[int, ...] = Field(
        (), strict=False, description="adaptation steps of the final curve; empty: 0 and the learner's test steps"
    )
    seed: int = Field(0, ge=0, description="of the frozen episodes: apart from the run's seed, so that runs share them")

    @field_validator("steps")
    @classmethod
    def _ascending(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if list(steps) != sorted(set(steps)) or any(step < 0 for step in steps):
            raise ValueError("must ascend from 0 or more without repeats, such as [0, 1, 5]")
        return steps


class EngineSection(_Section):
    """Where clients run. Results do not depend on it."""

    cpus_per_client: float = Field(1.0, gt=0, description="CPU share of one actor [cores]")
    gpus_per_client: float = Field(0.0, ge=0, description="GPU share of one actor; 0.25 puts four on one [GPUs]")
    actors: int | None = Field(None, ge=1, description="none: as many as the machine and the shares allow [actors]")
    ray_address: str | None = Field(None, description="of a running Ray cluster; none: start one here")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where a GPU share is given")
    threads: int = Field(1, ge=1, description="torch threads of a client [threads]")
    start_timeout: float = Field(60.0, gt=0, description="longest wait for the actors to start [seconds]")


class TrackingSection(_Section):
    """Where metrics go beside the run directory."""

    backends: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        (), strict=False, description="each needs its extra; W&B works offline"
    )
    project: str = Field("fedmeta", description="W&B project")


class Experiment(_Section):
    """A whole experiment. Every key has a bound and, in brackets, a unit."""

    name: str = Field(
        "experiment",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="of the run directory: letters, digits, . _ -",
    )
    seed: int = Field(0, ge=0, description="of every reproducible draw; 0 is a seed like any other")
    data: Component = _component("hershey", "the data set")
    partition: Component = _component("alphabet", "how it is divided among clients")
    task: TaskSection = Field(TaskSection(), description=TaskSection.__doc__)
    model: Component = _component("conv4", "the network")
    learner: Component = _component("protonet", "the meta-learner")
    sharing: SharingSection = Field(SharingSection(), description=SharingSection.__doc__)
    client: ClientSection = Field(ClientSection(), description=ClientSection.__doc__)
    server: ServerSection = Field(ServerSection(), description=ServerSection.__doc__)
    evaluation: EvaluationSection = Field(EvaluationSection(), description=EvaluationSection.__doc__)
    engine: EngineSection = Field(EngineSection(), description=EngineSection.__doc__)
    tracking: TrackingSection = Field(TrackingSection(), description=TrackingSection.__doc__)

    def component(self, place: str) -> Component:
        """The component at a dotted place, such as `client.optimiser`."""
        found: Any = self
        for key in place.split("."):
            found = getattr(found, key)
        return found

    def to_json(self) -> str:
        """The resolved experiment as canonical JSON: what the server sends to clients and a run directory keeps."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @property
    def hash(self) -> str:
        """SHA-256 of everything that results depend on: all but the engine, tracking and the name."""
        relevant = self.model_dump(mode="json", exclude={"engine", "tracking", "name"})
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def load_experiment(
    path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    registries: Mapping[str, Registry] = LIBRARY_COMPONENTS,
) -> Experiment:
    """Read and validate an experiment file.

    Args:
        path: a TOML file.
        overrides: dotted key -> value, such as `{"learner.name": "reptile"}`.
        registries: place -> registry of the components to check; the server adds those of strategies.

    Raises:
        ConfigurationError: no such file, not TOML, or anything that `parse_experiment` refuses.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read the experiment file '{path}': {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"the experiment file '{path}' is not UTF-8 text: {error}") from error
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"'{path}' is not valid TOML: {error}") from error
    return parse_experiment(raw, overrides, registries)


def parse_experiment(
    raw: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    registries: Mapping[str, Registry] = LIBRARY_COMPONENTS,
) -> Experiment:
    """Validate an experiment given as nested mappings, every component's parameters included.

    Raises:
        ConfigurationError: names the key, the value, the bound and the remedy of every fault found.
    """
    merged = _with_overrides(raw, overrides or {}, registries)
    try:
        experiment = Experiment.model_validate(merged)
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from error
    resolved = experiment.model_dump()
    for place, registry in registries.items():
        component = experiment.component(place)
        for derived in DERIVED.get(place, ()):
            if derived in component.parameters:
                raise ConfigurationError(f"{place}.{derived} follows from the data and the learner: remove it")
        checked = registry.check(component.name, component.parameters, place)
        for derived in DERIVED.get(place, ()):
            checked.pop(derived, None)
        _assign(resolved, place.split("."), {"name": component.name, **checked})
    experiment = Experiment.model_validate(resolved)
    _check_together(experiment)
    return experiment


def parse_override(text: str) -> tuple[str, Any]:
    """Split `key=value`; the value is read as TOML where it is TOML, else as text.

    Raises:
        ConfigurationError: no equals sign or no key.

    >>> parse_override("seed=0"), parse_override("learner.name=maml"), parse_override("evaluation.steps=[0, 1]")
    (('seed', 0), ('learner.name', 'maml'), ('evaluation.steps', [0, 1]))
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigurationError(f"'{text}' is not KEY=VALUE, such as learner.name=maml")
    value = value.strip()
    if value.lower() == "none":
        return key.strip(), None
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def _with_overrides(
    raw: Mapping[str, Any], overrides: Mapping[str, Any], registries: Mapping[str, Registry]
) -> dict[str, Any]:
    merged: dict[str, Any] = json.loads(json.dumps(raw, default=str))
    for place, registry in registries.items():
        new_name = overrides.get(f"{place}.name")
        if new_name is not None:
            _drop_foreign_parameters(merged, place, str(new_name), registry)
    for key, value in overrides.items():
        _assign(merged, key.split("."), value)
    for place in registries:
        _name_by_default(merged, place)
    return merged


def _name_by_default(merged: dict[str, Any], place: str) -> None:
    """Parameters that are given without a name belong to the component that stands there by default."""
    *above, last = place.split(".")
    table: Any = merged
    for key in above:
        table = table.get(key) if isinstance(table, dict) else None
    if isinstance(table, dict) and isinstance(table.get(last), dict) and "name" not in table[last]:
        table[last]["name"] = Experiment().component(place).name


def _drop_foreign_parameters(merged: dict[str, Any], place: str, name: str, registry: Registry) -> None:
    """A file's parameters belong to the component it names: another one keeps only those that it has too."""
    from fedmeta.parameters import parameters_of

    table: Any = merged
    for key in place.split("."):
        table = table.get(key) if isinstance(table, dict) else None
    if not isinstance(table, dict) or table.get("name") == name:
        return
    declared = parameters_of(registry.get(name))
    for key in [key for key in table if key != "name" and key not in declared]:
        warnings.warn(
            f"{place}.{key} = {table.pop(key)!r} is dropped: {registry.singular} '{name}' has no such parameter",
            stacklevel=2,
        )


def _assign(target: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise ConfigurationError(f"'{'.'.join(keys)}': '{key}' is a value, not a section")
    target[keys[-1]] = value


def _explain(error: ValidationError) -> str:
    lines = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"unknown key '{place}'{did_you_mean(str(fault['loc'][-1]), _known_keys(fault['loc'][:-1]))}")
        elif fault["type"] == "missing":
            lines.append(f"'{place}' is missing")
        else:
            lines.append(f"{place} = {fault['input']!r}: {fault['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)


def _known_keys(place: tuple[Any, ...]) -> list[str]:
    model: Any = Experiment
    for key in place:
        model = model.model_fields[key].annotation
    return list(model.model_fields)


def _check_together(experiment: Experiment) -> None:
    """Faults that only two keys together make."""
    head = LEARNERS.get(experiment.learner.name).head  # type: ignore[attr-defined]
    ways = experiment.evaluation.ways
    if head == "ways" and ways is not None and ways != experiment.task.ways:
        raise ConfigurationError(
            f"evaluation.ways = {ways} but task.ways = {experiment.task.ways}: the head of learner "
            f"'{experiment.learner.name}' has a fixed number of outputs. Make them equal, or use another learner"
        )
