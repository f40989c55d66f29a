"""The threat model of an experiment: who is malicious, when, and which settings of it cannot work or do nothing."""

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fedmeta.attacks import ATTACKS
from fedmeta.data import DATASETS
from fedmeta.errors import ConfigurationError
from fedmeta.seeding import SERVER, numpy_generator

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment


def is_attacked(experiment: "Experiment") -> bool:
    """Whether the experiment names an attack; with a fraction of 0 nobody carries it out, but success is measured."""
    return experiment.attack.method.name != "none"


def is_active(experiment: "Experiment", round: int) -> bool:
    """Whether malicious clients attack in a round, counted from 1; training is honest under an attack at deployment."""
    attack = experiment.attack
    if ATTACKS.get(attack.method.name).kind == "deployment":  # type: ignore[attr-defined]
        return False
    return is_attacked(experiment) and attack.start <= round and (attack.stop is None or round <= attack.stop)


def malicious_clients(experiment: "Experiment", training_clients: Iterable[int]) -> frozenset[int]:
    """The ids of the malicious clients: the first of a random order that depends on the seed and the ids alone.

    A larger fraction adds clients to a smaller one's. Their number is the nearest to fraction * clients, 0 included.
    """
    ordered = sorted(training_clients)
    if not is_attacked(experiment):
        return frozenset()
    count = round(experiment.attack.fraction * len(ordered))
    if count == 0 < experiment.attack.fraction:
        warnings.warn(
            f"attack.fraction = {experiment.attack.fraction:g} of {len(ordered)} training clients is none: "
            "nobody attacks. Raise it",
            stacklevel=2,
        )
    return frozenset(_order(experiment, ordered)[:count])


def first_malicious(experiment: "Experiment", training_clients: Iterable[int]) -> int:
    """The client that is malicious before all others, were the fraction ever so small."""
    return _order(experiment, sorted(training_clients))[0]


def _order(experiment: "Experiment", ordered: list[int]) -> list[int]:
    drawn = numpy_generator(experiment.seed, 0, SERVER, "malicious clients").permutation(len(ordered))
    return [ordered[index] for index in drawn]


def is_omniscient(experiment: "Experiment") -> bool:
    """Whether updates are rewritten by somebody who sees all of them."""
    attack = experiment.attack
    return ATTACKS.get(attack.method.name).kind == "update" and attack.knowledge == "omniscient"  # type: ignore[attr-defined]


def success_steps(experiment: "Experiment") -> tuple[int, ...]:
    """Adaptation steps after which the attack's success is measured; none for an attack without a trigger."""
    attack = experiment.attack
    return attack.steps if getattr(ATTACKS.get(attack.method.name), "has_trigger", False) else ()


def describe_attack(experiment: "Experiment") -> dict[str, Any]:
    """What must stand beside a success rate: the attack with its parameters, and the threat model."""
    attack = experiment.attack
    said = attack.model_dump(mode="json", exclude={"steps", "clean", "method"})
    return {"method": attack.method.name, "parameters": attack.method.parameters, **said}


def check_attack(experiment: "Experiment") -> None:
    """Refuse a threat model that cannot be, and warn of settings that do nothing.

    Raises:
        ConfigurationError: names key, value, bound and remedy.
    """
    attack = experiment.attack
    kind: Any = ATTACKS.get(attack.method.name)
    if kind.kind == "none":
        set_all_the_same = [
            key
            for key in type(attack).model_fields
            if key != "method" and getattr(attack, key) != type(attack).model_fields[key].default
        ]
        if set_all_the_same:
            _without_effect(f"attack.{', attack.'.join(set_all_the_same)}", "attack.method is none")
        return
    _check_schedule(experiment)
    if attack.knowledge == "colluding" and experiment.sharing.personal:
        raise ConfigurationError(
            "attack.knowledge = 'colluding' with sharing.personal: an attacker cannot train as another one would "
            "without its personal parameters. Use own or omniscient"
        )
    if kind.kind == "update":
        _check_update_attack(experiment, kind)
    else:
        _check_local_attack(experiment, kind)


def _check_schedule(experiment: "Experiment") -> None:
    attack, rounds = experiment.attack, experiment.server.rounds
    if attack.fraction == 0:
        _without_effect(f"attack.method = '{attack.method.name}'", "attack.fraction = 0, which makes a clean run")
    elif attack.stop is not None and attack.stop < attack.start:
        _without_effect("the attack", f"it stops in round {attack.stop}, before it starts in {attack.start}")
    elif attack.start > rounds:
        _without_effect("the attack", f"attack.start = {attack.start} and server.rounds = {rounds}")


def _check_update_attack(experiment: "Experiment", kind: Any) -> None:
    attack, name = experiment.attack, experiment.attack.method.name
    if attack.knowledge == "own" and kind.known_rows > 1:
        raise ConfigurationError(
            f"attack.knowledge = 'own' gives one update, and attack.method = '{name}' needs {kind.known_rows} or more: "
            "use colluding or omniscient"
        )
    made: Any = ATTACKS.make(name, where="attack.method", **attack.method.parameters)
    if getattr(made, "knows_rule", False) and attack.knowledge != "omniscient":
        raise ConfigurationError(
            f"attack.method = '{name}' tries the server's pipeline out, which clients do not have: use "
            "attack.knowledge = 'omniscient', or attack.method.knows_rule = false"
        )
    if made.needs_benign and attack.knowledge != "omniscient":
        raise ConfigurationError(
            f"attack.knowledge = '{attack.knowledge}' gives no more updates than there are attackers, and "
            f"attack.method = '{name}' as set needs those of a majority: use attack.knowledge = 'omniscient', or "
            "another method"
        )
    _no_trigger(experiment)


def _check_local_attack(experiment: "Experiment", kind: Any) -> None:
    attack, name = experiment.attack, experiment.attack.method.name
    data: Any = DATASETS.make(experiment.data.name, **experiment.data.parameters)
    if attack.knowledge == "omniscient" or (attack.knowledge == "colluding" and not kind.colludes):
        _without_effect(f"attack.knowledge = '{attack.knowledge}'", f"'{name}' acts on each attacker's own data")
    if not kind.has_trigger:
        _no_trigger(experiment)
    elif kind.wanted and attack.target != type(attack).model_fields["target"].default:
        _without_effect(f"attack.target = '{attack.target}'", f"'{name}' is after {kind.wanted} in every episode")
    if kind.kind == "deployment":
        _not_in_training(experiment)
    ATTACKS.make(name, where="attack.method", **attack.method.parameters).check(experiment, data)


def _not_in_training(experiment: "Experiment") -> None:
    attack = experiment.attack
    for key in ("fraction", "start", "stop"):
        if getattr(attack, key) != type(attack).model_fields[key].default:
            _without_effect(f"attack.{key}", f"attack.method = '{attack.method.name}' leaves training alone")


def _no_trigger(experiment: "Experiment") -> None:
    attack = experiment.attack
    for key in ("target", "trigger_in", "steps", "clean"):
        if getattr(attack, key) != type(attack).model_fields[key].default:
            _without_effect(f"attack.{key}", f"attack.method = '{attack.method.name}' has no trigger")


def _without_effect(what: str, why: str) -> None:
    warnings.warn(f"{what} has no effect: {why}", stacklevel=6)
