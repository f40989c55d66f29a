"""Experiments as the server reads them: the library's components and those of strategies are checked together."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import LIBRARY_COMPONENTS, Experiment
from fedmeta.experiment_file import load_experiment, parse_experiment, parse_override
from strategies import COMPONENTS
from strategies.defence import make_defence

ALL_COMPONENTS = {**LIBRARY_COMPONENTS, **COMPONENTS}


def load(source: str | Path | Mapping[str, Any] | Experiment, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Validate an experiment from a TOML file, nested mappings, or an experiment to be changed.

    Args:
        source: the experiment.
        overrides: dotted key -> value, such as `{"learner.name": "reptile"}`.

    Raises:
        ConfigurationError: names key, value, bound and remedy.
    """
    if isinstance(source, Experiment):
        source = source.model_dump(mode="json")
    if isinstance(source, Mapping):
        experiment = parse_experiment(source, overrides, ALL_COMPONENTS)
    else:
        experiment = load_experiment(source, overrides, ALL_COMPONENTS)
    make_defence(experiment)
    return experiment


def from_run_config(run_config: Mapping[str, Any], root: Path) -> Experiment:
    """The experiment of a `flwr run`, from its four string keys.

    Args:
        run_config: `config` (a file, absolute or relative to the app), `experiment` (a whole one as JSON, as
            `fedmeta export` writes it; wins over `config`) and `set` (pairs `key=value` separated by `;`).
        root: the folder of the app.

    Raises:
        ConfigurationError: JSON that does not parse, or anything that `load` refuses.
    """
    pairs = [pair for pair in str(run_config.get("set", "")).split(";") if pair.strip()]
    overrides = dict(parse_override(pair) for pair in pairs)
    text = str(run_config.get("experiment", ""))
    if text:
        try:
            return load(json.loads(text), overrides)
        except json.JSONDecodeError as error:
            raise ConfigurationError(f"the run configuration's `experiment` is not JSON: {error}") from error
    path = Path(str(run_config.get("config", "")))
    return load(path if path.is_absolute() else root / path, overrides)
