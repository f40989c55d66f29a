"""Faults of the `secagg` section together with the rest of an experiment, and the plan of a group by it."""

import warnings

from fedmeta.attacks.threat import is_omniscient
from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.privacy.secagg import Plan, choose_plan
from fedmeta.privacy.secagg.plan import COMPLETE, SMALLEST, least_threshold
from fedmeta.privacy.secagg_section import SecaggSection

LEAST_CLIENTS = 4
"""A sum over fewer clients hides too little: two who collude know a third one's update."""


def check_secagg(experiment: Experiment) -> None:
    """Refuse what cannot work on sums of masked updates, and warn of what has no effect.

    Raises:
        ConfigurationError: names the key, the reason and the remedy.
    """
    secagg = experiment.secagg
    if not secagg.enabled:
        given = [
            f"secagg.{key}" for key, field in type(secagg).model_fields.items() if getattr(secagg, key) != field.default
        ]
        if given:
            warnings.warn(f"{', '.join(given)} has no effect: secagg.enabled = false. Set it to true", stacklevel=3)
        return
    _check_group(experiment)
    _check_weights(experiment)
    privacy = experiment.privacy
    if privacy.unit != "none" and privacy.placement == "central":
        raise ConfigurationError(
            "privacy.placement = 'central' is not available with secagg.enabled: the server would have to clip updates "
            "that it does not see. Use 'local', or 'distributed', where clients add shares of the noise"
        )
    if is_omniscient(experiment):
        raise ConfigurationError(
            "attack.knowledge = 'omniscient' is not available with secagg.enabled: replies are masked, and no one can "
            "see or rewrite them. Use 'own' or 'colluding', which act within the clients"
        )
    if secagg.seconds is not None and secagg.seconds > experiment.server.timeout:
        warnings.warn(
            f"secagg.seconds = {secagg.seconds:g} has no effect: server.timeout = {experiment.server.timeout:g} ends "
            "the round before",
            stacklevel=3,
        )


def least_clients(experiment: Experiment) -> int:
    """The smallest group whose sum may be taken."""
    return SMALLEST if experiment.secagg.allow_unsafe_groups else LEAST_CLIENTS


def group_plan(secagg: SecaggSection, count: int) -> Plan:
    """Neighbours and threshold of a group of `count` clients: as the experiment says, the rest by the protocol's rule.

    Raises:
        ConfigurationError: numbers that such a group cannot have, or shares of the clients that it cannot bear.
    """
    neighbours = None if secagg.neighbours is None else min(secagg.neighbours, count - 1)
    threshold = secagg.threshold
    if neighbours is None or threshold is None:
        active = secagg.adversary == "active"
        try:
            found = choose_plan(count, secagg.corrupt, secagg.dropouts, active)
        except ConfigurationError as error:
            raise ConfigurationError(f"{error} (secagg.corrupt, secagg.dropouts, secagg.adversary)") from None
        neighbours = found.degree if neighbours is None else neighbours
        threshold = found.threshold if threshold is None else threshold
    try:
        plan = Plan(count, neighbours, threshold)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} (secagg.neighbours, secagg.threshold)") from None
    least = least_threshold(count, neighbours, 0.0, active=False)
    if threshold < least:
        raise ConfigurationError(
            f"secagg.threshold = {threshold} must be at least {least} for a group of {count} with {neighbours} "
            "neighbours: every client refuses a secret that fewer than half of its holders can rebuild. Raise it, or "
            "remove it, and it follows from corrupt and dropouts"
        )
    return plan


def warn_of_weak_plan(secagg: SecaggSection, count: int) -> None:
    """Say so where neighbours and threshold of a group of `count`, as given, are below what is assumed of others."""
    plan, active = group_plan(secagg, count), secagg.adversary == "active"
    least = least_threshold(count, plan.degree, secagg.corrupt, active)
    if plan.threshold < least:
        warnings.warn(
            f"secagg.threshold = {plan.threshold} of {plan.degree + 1} shares, in a group of {count}, does not hold "
            f"against secagg.corrupt = {secagg.corrupt:g} and secagg.adversary = '{secagg.adversary}', which take "
            f"{least}{'' if least <= plan.degree + 1 else ', more than there are: give more neighbours'}. Remove it, "
            "and it follows from them",
            stacklevel=5,
        )


def _check_group(experiment: Experiment) -> None:
    secagg, least = experiment.secagg, least_clients(experiment)
    sampling = experiment.server.sampling
    clients = sampling.parameters.get("clients") if sampling.name == "fixed" else None
    for key, size in (("secagg.group_size", secagg.group_size), ("server.sampling.clients", clients)):
        if isinstance(size, int) and size < least:
            override = "" if secagg.allow_unsafe_groups else ", or set secagg.allow_unsafe_groups = true to study it"
            raise ConfigurationError(
                f"{key} = {size} must be at least {least} with secagg.enabled: a sum of fewer updates hides too little"
                f"{override}"
            )
    largest = secagg.group_size
    if isinstance(clients, int):
        groups = 1 if largest is None else max(1, clients // largest)
        largest = -(-clients // groups)
    if secagg.adversary == "active" and largest is not None and _is_ring(secagg, largest):
        warnings.warn(
            f"secagg.adversary = 'active' holds only in part: a group of {largest}, not all of them neighbours, is a "
            "ring that the server draws, and one that lies can surround a client with colluders. Set secagg.group_size "
            f"to at most {COMPLETE} and no secagg.neighbours, or secagg.adversary = 'semi-honest' where the server is "
            "trusted to draw at random",
            stacklevel=4,
        )
    if secagg.threshold is not None and secagg.group_size is not None and secagg.threshold > secagg.group_size:
        raise ConfigurationError(
            f"secagg.threshold = {secagg.threshold} must be at most secagg.group_size = {secagg.group_size}: no group "
            "has so many shares. Lower it, or remove it, and it follows from corrupt and dropouts"
        )


def _is_ring(secagg: SecaggSection, count: int) -> bool:
    return count > COMPLETE if secagg.neighbours is None else secagg.neighbours < count - 1


def _check_weights(experiment: Experiment) -> None:
    secagg = experiment.secagg
    if experiment.task.kind == "own" and secagg.weight_bound is None:
        raise ConfigurationError(
            "task.kind = 'own' with secagg.enabled needs secagg.weight_bound, the most examples that a client may "
            "count for: weights travel inside the masked vector, whose entries are bounded"
        )
