"""The model of a run without attack, against which an attack's success is measured, and what is said of the success."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedmeta.attacks.success import AttackSuccess
from fedmeta.errors import ConfigurationError
from fedmeta.experiment import AttackSection, Experiment
from fedmeta.params import ParamSpec
from server.rundir import RunDir

log = logging.getLogger("fedmeta.attack")


def clean_model(experiment: Experiment, spec: ParamSpec) -> Tensor | None:
    """The last model `[D]` of the run in `attack.clean`; None where none is named.

    Raises:
        ConfigurationError: that run has another model, was attacked, or is not finished.
    """
    place = experiment.attack.clean
    if place is None:
        return None
    rundir = RunDir.open(place, exclusive=False)
    other = rundir.experiment
    if other.attack.method.name != "none" and other.attack.fraction > 0:
        raise ConfigurationError(f"attack.clean = '{place}' was attacked itself: name a run without attackers")
    if rundir.results() is None:
        raise ConfigurationError(f"attack.clean = '{place}' is not finished: resume it first")
    checkpoint = rundir.load("last")
    if checkpoint.spec_hash != spec.hash:
        raise ConfigurationError(f"attack.clean = '{place}' has another model: name a run of the same experiment")
    if _without_attack(other) != _without_attack(experiment):
        log.warning("attack.clean = '%s' differs from this experiment in more than the attack: no paired lift", place)
    return spec.flatten(checkpoint.params)


def _without_attack(experiment: Experiment) -> str:
    return experiment.model_copy(update={"attack": AttackSection()}).hash


def success_rows(results: Mapping[str, Any], which: str = "last") -> list[tuple[AttackSuccess, str]]:
    """The attack's successes of a finished run, each with its split in words."""
    words = {"pooled": "tasks across all test clients", "test": "each client's own tasks"}
    found = ((results.get(which) or {}).get("attack") or {}).items()
    return [(AttackSuccess.from_json(data), words[split]) for split, data in found if data]
