"""How many client actors a cluster can hold, and what lies idle."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedmeta.errors import ConfigurationError
from fedmeta.parameters import require_number

_BOUNDS = {
    "cpus_per_client": "a share above 0, such as 1",
    "gpus_per_client": "0 for none, a fraction such as 0.25, or a whole number",
    "actors": "at least 1, or leave it away for as many as fit",
}


@dataclass(frozen=True)
class Machine:
    """What one Ray node offers: CPU cores and GPUs, as declared to Ray."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Plan:
    """Actors for a run.

    Attributes:
        actors: how many, at least 1.
        cpus, gpus: share of each.
        idle: what lies idle and what to do about it, in words; empty when nothing does.
    """

    actors: int
    cpus: float
    gpus: float
    idle: str = ""

    def describe(self) -> str:
        """One line for logs."""
        gpu = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.actors} actor{'s' if self.actors > 1 else ''} of {self.cpus:g} CPU{gpu} each" + (
            f"; {self.idle}" if self.idle else ""
        )


def make_plan(
    machines: Sequence[Machine],
    *,
    cpus_per_client: float,
    gpus_per_client: float,
    clients: int,
    actors: int | None = None,
) -> Plan:
    """Size the pool by what each machine, and each single GPU, can really hold.

    A share of 0.6 fits once on each of two GPUs, whatever their sum: an actor lives on one device.

    Args:
        machines: of the cluster.
        cpus_per_client: CPU share of an actor, > 0.
        gpus_per_client: GPU share of an actor, >= 0; above 1 it must be whole.
        clients: no more actors than clients.
        actors: no more than this; None for as many as fit.

    Raises:
        ConfigurationError: not one actor fits; names what was asked, what there is, and the remedy.

    >>> make_plan([Machine(8, 2)], cpus_per_client=1, gpus_per_client=0.4, clients=10).actors
    4
    """
    check_shares(cpus_per_client, gpus_per_client, actors)
    room = fitting(machines, cpus_per_client, gpus_per_client)
    if room < 1:
        most_cpus = max((machine.cpus for machine in machines), default=0)
        most_gpus = max((machine.gpus for machine in machines), default=0)
        raise ConfigurationError(
            f"not one client actor fits: engine.cpus_per_client = {cpus_per_client:g} and engine.gpus_per_client = "
            f"{gpus_per_client:g} are asked, the largest machine has {most_cpus:g} CPUs and {most_gpus:g} GPUs. "
            "Lower them, or connect to a larger cluster"
        )
    count = min(room, clients, actors if actors is not None else room)
    return Plan(count, cpus_per_client, gpus_per_client, _idle_gpu(machines, gpus_per_client))


def check_shares(cpus_per_client: float, gpus_per_client: float, actors: int | None) -> None:
    """Refuse shares that no machine has, before one is asked; arguments as for `make_plan`.

    Raises:
        ConfigurationError: names the key and what it must be.
    """
    for key, value, least in (("cpus_per_client", cpus_per_client, 0), ("gpus_per_client", gpus_per_client, 0)):
        require_number(f"engine.{key}", value)
        if value < least or (key == "cpus_per_client" and value == 0):
            raise ConfigurationError(f"engine.{key} = {value} cannot be: give {_BOUNDS[key]}")
    if actors is not None:
        require_number("engine.actors", actors, whole=True)
        if actors < 1:
            raise ConfigurationError(f"engine.actors = {actors} cannot be: give {_BOUNDS['actors']}")
    if gpus_per_client > 1 and gpus_per_client != int(gpus_per_client):
        raise ConfigurationError(f"engine.gpus_per_client = {gpus_per_client:g}: above 1 it must be a whole number")


def fitting(machines: Sequence[Machine], cpus: float, gpus: float) -> int:
    """How many actors of a share the machines hold."""
    return sum(_fits(machine, cpus, gpus) for machine in machines)


def _fits(machine: Machine, cpus: float, gpus: float) -> int:
    by_cpu = math.floor(machine.cpus / cpus + 1e-9)
    if gpus <= 0:
        return by_cpu
    on_one = math.floor(1 / gpus + 1e-9)
    by_gpu = int(machine.gpus) * on_one if gpus <= 1 else math.floor(machine.gpus / gpus)
    return min(by_cpu, by_gpu)


def _idle_gpu(machines: Sequence[Machine], gpus: float) -> str:
    if not 0 < gpus < 1 or not any(machine.gpus for machine in machines):
        return ""
    on_one = math.floor(1 / gpus + 1e-9)
    left = 1 - on_one * gpus
    if left < 1e-6:
        return ""
    better = " or ".join(f"{1 / n:g}" for n in (on_one + 1, on_one))
    return f"{left:.2g} of every GPU lies idle, since {gpus:g} fits {on_one} times: use {better}"
