"""Reading an experiment: TOML files, overrides, and the check of every component's parameters."""

import copy
import json
import re
import tomllib
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedmeta.adversarial.check import check_adversarial
from fedmeta.attacks.threat import check_attack
from fedmeta.component import Component
from fedmeta.deployment import check_deployment
from fedmeta.errors import ConfigurationError, did_you_mean
from fedmeta.experiment import DERIVED, LIBRARY_COMPONENTS, Experiment
from fedmeta.fedex_section import check_fedex
from fedmeta.learners import LEARNERS
from fedmeta.parameters import parameters_of
from fedmeta.privacy.secagg_settings import check_secagg
from fedmeta.privacy.settings import check_privacy
from fedmeta.registry import Registry

SEVERAL = {
    "experiment": ("server.preaggregators", "evaluation.deployment"),
    "grid": ("setups", "attacks", "defences", "compare"),
}
"""Lists of tables, by the kind of a file."""

SHOULD = "Input should be "
"""How pydantic begins most of what it has to say."""


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
    return parse_experiment(read_toml(path, "experiment"), overrides, registries)


def read_toml(path: str | Path, kind: str) -> dict[str, Any]:
    """What a TOML file holds; `kind` is what an error calls the file.

    Raises:
        ConfigurationError: no such file, or not TOML.
    """
    if not isinstance(path, str | Path):
        raise ConfigurationError(f"{path!r:.80} is no {kind}: give the path of its file, or its tables as mappings")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read the {kind} file '{path}': {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"the {kind} file '{path}' is not UTF-8 text: {error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path!r:.80} is no path of a {kind} file: {error}") from error
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(_twice(text, path, kind) or f"'{path}' is not valid TOML: {error}") from error
    # Both kinds lie side by side: a list of all keys that the other kind has would not say so.
    if kind == "experiment" and "seeds" in found:
        raise ConfigurationError(f"'{path}' is a grid file, of many experiments: fedmeta bench {path}")
    if kind == "grid" and "seeds" not in found and "data" in found:
        raise ConfigurationError(f"'{path}' is an experiment file, and no grid of many: fedmeta simulate {path}")
    return found


def _twice(text: str, path: str | Path, kind: str) -> str:
    """What to write in place of a table that stands twice, which TOML forbids; empty where none does."""
    heads = re.findall(r"^\s*\[\s*([\w.-]+)\s*\]\s*(?:#.*)?$", text, re.MULTILINE)
    # Below [[a]] there may be an [a.b] for each.
    alone = [head for head in heads if f"[[{head.partition('.')[0]}]]" not in text]
    name = next((head for place, head in enumerate(alone) if head in alone[:place]), None)
    if name is None:
        return ""
    if name in SEVERAL[kind]:
        remedy = f"write [[{name}]] above each, in double brackets"
    elif name in ("attack", "attacks"):
        remedy = "an experiment has one [attack]; a grid file compares several, each under [[attacks]] (fedmeta bench)"
    else:
        remedy = f"put all its keys under one [{name}]"
    return f"'{path}': the table [{name}] stands there more than once: {remedy}"


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
        found = experiment.component(place)
        if isinstance(found, Component):
            checked: Any = _checked_component(found, registry, place)
        else:
            checked = [_checked_component(one, registry, f"{place}[{index}]") for index, one in enumerate(found)]
        _assign(resolved, place.split("."), checked)
    experiment = Experiment.model_validate(resolved)
    _check_together(experiment)
    return experiment


def _checked_component(component: Component, registry: Registry, place: str) -> dict[str, Any]:
    """A component with all its parameters, those left out that follow from other sections."""
    for derived in DERIVED.get(place, ()):
        if derived in component.parameters:
            raise ConfigurationError(f"{place}.{derived} follows from the data and the learner: remove it")
    for key in component.parameters:
        if key not in parameters_of(registry.get(component.name)) and get_close_matches(key, ["name"]):
            raise ConfigurationError(f"unknown key '{place}.{key}'; did you mean '{place}.name'?")
    checked = registry.check(component.name, component.parameters, place)
    for derived in DERIVED.get(place, ()):
        checked.pop(derived, None)
    return {"name": component.name, **checked}


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
        _assign(merged, key.split("."), copy.deepcopy(value))  # a longer key may write into it
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
        default = Experiment().component(place)
        if isinstance(default, Component):  # a list of components has none: validation says that one table is no list
            table[last] = {"name": default.name, **default.parameters, **table[last]}


def _drop_foreign_parameters(merged: dict[str, Any], place: str, name: str, registry: Registry) -> None:
    """A file's parameters belong to the component it names: another one keeps only those that it has too."""
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
    """What is wrong with each key: its value, what it must be, and what it is."""
    lines: list[str] = []
    faulty: dict[str, tuple[Any, list[str], str]] = {}
    for fault in error.errors():
        place, meaning = _key(fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"unknown key '{place}'{_meant(fault['loc'])}")
        elif fault["type"] == "tuple_type" and isinstance(fault["input"], dict):
            lines.append(f"[{place}] is one table, and there may be several: write [[{place}]] above each")
        elif fault["type"] == "tuple_type":
            lines.append(f"{place} = {fault['input']!r} must be a list, such as [{fault['input']!r}]")
        elif fault["type"] == "missing":
            lines.append(f"'{place}' is missing")
        elif fault["type"] in ("model_type", "model_attributes_type") and isinstance(fault["input"], list):
            lines.append(f"{place} is one table: write [{place}] once, in single brackets")
        elif fault["type"] in ("model_type", "model_attributes_type"):
            lines.append(f"{place} = {fault['input']!r} must be a table: set {place}.name to that")
        elif fault["type"] == "string_pattern_mismatch":
            lines.append(f"{place} = {fault['input']!r} does not fit{meaning}: it must match {fault['ctx']['pattern']}")
        elif fault["msg"].startswith(SHOULD):
            # A key that may be of several kinds has a fault for each.
            faulty.setdefault(place, (fault["input"], [], meaning))[1].append(fault["msg"].removeprefix(SHOULD))
        else:
            lines.append(f"{place} = {fault['input']!r}: {fault['msg'].removeprefix('Value error, ')}")
    lines += [f"{key} = {value!r} must be {' or '.join(musts)}{why}" for key, (value, musts, why) in faulty.items()]
    return "; ".join(lines)


def _key(place: tuple[Any, ...]) -> tuple[str, str]:
    """The key of a fault, without the kinds that pydantic tried on it, and in brackets what the schema says of it."""
    model: Any = Experiment
    for depth, part in enumerate(place):
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            break
        model = field.annotation
        if not hasattr(model, "model_fields"):
            return ".".join(map(str, place[: depth + 1])), f" ({field.description})" if field.description else ""
    return ".".join(map(str, place)), ""


def _meant(place: tuple[Any, ...]) -> str:
    """The key that was meant, in full; a key given without its section is looked for in all of them."""
    *above, last = (str(key) for key in place)
    known = [".".join([*above, key]) for key in _known_keys(tuple(above))]
    if not above:
        sections = {key: field.annotation for key, field in Experiment.model_fields.items()}
        inner = [f"{key}.{name}" for key, kind in sections.items() for name in getattr(kind, "model_fields", ())]
        leaf = [key for key in inner if key.rpartition(".")[2] == last]
        if leaf:
            return f"; did you mean '{leaf[0]}'?"
    return did_you_mean(".".join([*above, last]), known)


def _known_keys(place: tuple[Any, ...]) -> list[str]:
    model: Any = Experiment
    for key in place:
        model = model.model_fields[key].annotation
    return list(model.model_fields)


def _check_together(experiment: Experiment) -> None:
    """Faults that only two keys together make, and settings that can have no effect."""
    head = LEARNERS.get(experiment.learner.name).head  # type: ignore[attr-defined]
    ways = experiment.evaluation.ways
    if head == "ways" and ways is not None and ways != experiment.task.ways:
        raise ConfigurationError(
            f"evaluation.ways = {ways} but task.ways = {experiment.task.ways}: the head of learner "
            f"'{experiment.learner.name}' has a fixed number of outputs. Make them equal, or use another learner"
        )
    client, server = experiment.client, experiment.server
    if client.chunk_size != "auto" and client.execution == "loop":
        warnings.warn("client.chunk_size has no effect: execution = 'loop' takes tasks one by one", stacklevel=2)
    if server.weighting == "tasks" and experiment.task.kind == "episodes":
        warnings.warn("server.weighting = 'tasks' has no effect: all clients see as many tasks a round", stacklevel=2)
    check_privacy(experiment)
    check_adversarial(experiment)
    check_attack(experiment)
    check_secagg(experiment)
    check_deployment(experiment)
    check_fedex(experiment)
    if server.rounds == 0 and server.schedule != "constant":
        warnings.warn(f"server.schedule = '{server.schedule}' has no effect: server.rounds = 0", stacklevel=2)
