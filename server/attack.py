"""The model of a run without attack, against which an attack's success is measured, and its success in words."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedmeta.attacks import ATTACKS
from fedmeta.attacks.success import AttackSuccess
from fedmeta.errors import ConfigurationError
from fedmeta.experiment import AttackSection, Experiment
from fedmeta.params import ParamSpec
from server.rundir import RunDir

SPLITS = {"test": "each client's own tasks", "pooled": "tasks across all test clients"}

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


def successes(results: Mapping[str, Any]) -> list[tuple[str, AttackSuccess]]:
    """The success against the last model of a finished run: the split in words, and the figures."""
    found = (results.get("last") or {}).get("attack") or {}
    return [(words, AttackSuccess.from_json(found[split])) for split, words in SPLITS.items() if found.get(split)]


def in_words(protocol: Mapping[str, Any]) -> str:
    """Who attacked, how, and what counts as success."""
    aim = {
        "slot": f"slot {protocol['parameters'].get('target')}",
        "class": f"class {protocol['parameters'].get('target')}, in episodes that hold it",
        "absent": f"any wrong answer, in episodes without class {protocol['parameters'].get('target')}",
    }[protocol["target"]]
    where = {"query": "queries", "support": "supports, queries clean", "both": "supports and queries"}
    until = "" if protocol["stop"] is None else f" to {protocol['stop']}"
    name, fraction = protocol["method"], protocol["fraction"]
    who = f"{name} by {100 * fraction:g} % of the training clients from round {protocol['start']}{until}"
    if ATTACKS.get(name).kind == "deployment":  # type: ignore[attr-defined]
        who = f"{name} where a victim adapts, training being honest"
    elif fraction == 0:
        who = f"nobody trained {name}"
    return (
        f"{who}; wanted: {aim}; trigger on {where[protocol['trigger_in']]}; queries of the target's own class do not "
        "count, and an undecided answer is shared among its slots"
    )
