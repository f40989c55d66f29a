"""What distributed noise assumes of a group: how large it is, how many of it are left, and how many may collude."""

import math

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment


def group_bounds(experiment: Experiment) -> tuple[int, int]:
    """The smallest and the largest group of a round under secure aggregation.

    Raises:
        ConfigurationError: cohorts whose size is not fixed.
    """
    sampling, size = experiment.server.sampling, experiment.secagg.group_size
    clients = sampling.parameters.get("clients")
    if sampling.name != "fixed" or not isinstance(clients, int):
        raise ConfigurationError(
            f"server.sampling.name = '{sampling.name}' is not available with privacy.placement = 'distributed': noise "
            "and modulus are sized for a cohort that is known beforehand. Use fixed"
        )
    groups = 1 if size is None else max(1, clients // size)
    return clients // groups, -(-clients // groups)


def survivors_needed(experiment: Experiment) -> int:
    """The fewest clients of a group whose sum is released: as given, or what `secagg.dropouts` leaves of the smallest.

    Raises:
        ConfigurationError: more than a group has.
    """
    smallest, _ = group_bounds(experiment)
    given = experiment.privacy.min_survivors
    if given is None:
        return max(1, math.floor(smallest * (1 - experiment.secagg.dropouts) + 1e-9))
    if given > smallest:
        raise ConfigurationError(
            f"privacy.min_survivors = {given} must be <= {smallest}, the clients of the smallest group: no sum "
            "could be released. Lower it, or make groups larger"
        )
    return given


def colluders_assumed(experiment: Experiment) -> int:
    """How many of a group's survivors may tell their noise: as given, or `secagg.corrupt` of a round in one group.

    Raises:
        ConfigurationError: several groups and no number, or no honest survivor left.
    """
    smallest, largest = group_bounds(experiment)
    privacy, corrupt = experiment.privacy, experiment.secagg.corrupt
    found = privacy.colluders
    if found is None:
        if corrupt and smallest < experiment.server.sampling.parameters["clients"]:
            raise ConfigurationError(
                "privacy.colluders must be given with secagg.group_size: groups are drawn at random, and more than "
                f"secagg.corrupt = {corrupt:g} of one may collude. Say how many may"
            )
        found = math.ceil(largest * corrupt - 1e-9)
    needed = survivors_needed(experiment)
    if found >= needed:
        raise ConfigurationError(
            f"privacy.colluders = {found} must be < privacy.min_survivors = {needed}: colluders know their own noise, "
            "and no other would be left. Lower it, or make groups larger"
        )
    return found
