"""The model of a run without attack, against which an attack's success is measured, and its success in words."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fedmeta.attacks import ATTACKS
from fedmeta.attacks.success import AttackSuccess, area_under_curve, half_life
from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.experiment_sections import AttackSection
from fedmeta.params import ParamSpec
from server.rundir import RunDir
from server.words import counted

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


def persistence(history: Sequence[Mapping[str, Any]], stop: int | None) -> dict[str, Any] | None:
    """How success went over a run's validation rounds, by adaptation steps, and how soon it halved.

    Args:
        history: the rounds' records.
        stop: the attackers' last round; None: they stay.

    Returns:
        `of` (`lift`, or `rate` where there is no clean model), `steps`, `area` (the curve's mean over the rounds), and
        where there are measurements before and after `stop`: `stop`, `at_stop` and `half_life` (rounds; None where it
        has not halved, or there was no success to halve). None without any measurement.
    """
    measured = [(record["round"], record["attack_success"]) for record in history if record.get("attack_success")]
    if not measured:
        return None
    rounds = [round for round, _ in measured]
    of = "lift" if all(found["lift"] for _, found in measured) else "rate"
    steps = list(measured[0][1]["steps"])
    curves = [[found[of][row]["mean"] for _, found in measured] for row in range(len(steps))]
    told: dict[str, Any] = {"of": of, "steps": steps, "area": [area_under_curve(rounds, curve) for curve in curves]}
    if stop is not None and rounds[0] <= stop < rounds[-1]:
        last = max(index for index, round in enumerate(rounds) if round <= stop)
        told |= {"stop": stop, "at_stop": [curve[last] for curve in curves], "measured_until": rounds[-1]}
        told["half_life"] = [half_life(rounds, curve, stop) for curve in curves]
    return told


def persistence_in_words(found: Mapping[str, Any]) -> str:
    """When the success had halved after the attackers left; empty where they did not leave.

    >>> told = {"of": "lift", "steps": [0, 5], "stop": 9, "at_stop": [0.0, 0.8], "half_life": [None, 4]}
    >>> persistence_in_words({**told, "measured_until": 20})
    'after the attackers left in round 9 the lift, 80 % after 5 adaptation steps, had halved 4 rounds later'
    """
    if "half_life" not in found or not found["at_stop"][-1] > 0:
        return ""
    share, rounds = found["at_stop"][-1], found["half_life"][-1]
    later = f"had halved {counted(rounds, 'round')} later"
    then = f"had not halved by round {found['measured_until']}" if rounds is None else later
    where = f"{100 * share:.0f} % after {counted(found['steps'][-1], 'adaptation step')}"
    return f"after the attackers left in round {found['stop']} the {found['of']}, {where}, {then}"


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
    kind: Any = ATTACKS.get(name)
    if kind.kind == "deployment":
        who = f"{name} where a victim adapts, training being honest"
    elif fraction == 0:
        who = f"nobody trained {name}"
    if kind.wanted:
        return f"{who}; wanted: {kind.wanted}; trigger on {where[protocol['trigger_in']]}"
    return (
        f"{who}; wanted: {aim}; trigger on {where[protocol['trigger_in']]}; queries of the target's own class do not "
        "count, and an undecided answer is shared among its slots"
    )
