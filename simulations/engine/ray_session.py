"""This process's connection to Ray, shared by all grids in it; the last to leave ends what the first began."""

import logging
import os
import socket
from dataclasses import dataclass
from typing import Any

# Read by Ray when it is imported or started: a worker must not rebuild an environment, and nothing reports home.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray makes its workers nice, and the least other load then takes the time of simulated clients.
os.environ.setdefault("RAY_worker_niceness", "0")

import ray
from ray.exceptions import RayError

from fedmeta.errors import ConfigurationError, FedmetaError
from simulations.engine.plan import Machine
from simulations.engine.ray_internals import quick_start, sigterm_kept

log = logging.getLogger("fedmeta.engine")

PROBE_SECONDS = 5.0
"""Longest wait for a cluster's address to answer; Ray itself would try for minutes and then end the process."""


@dataclass
class _Session:
    """A Ray connection in use: which one, whether a grid opened it, began Ray with it, and how many grids use it."""

    node: str
    ours: bool
    local: bool
    members: int = 0


_current: _Session | None = None


def join(address: str | None) -> None:
    """Connect to Ray, or share the connection that this process has.

    Args:
        address: of a running cluster; None starts one on this machine, or takes the environment's `RAY_ADDRESS`.

    Raises:
        ConfigurationError: no cluster answers there.
    """
    global _current
    ours = not ray.is_initialized()
    cluster = address or os.environ.get("RAY_ADDRESS") or None
    if ours:
        _connect(cluster)
    elif address is not None and address != ray.get_runtime_context().gcs_address:
        log.warning(
            "engine.ray_address = '%s' has no effect: this process is connected to the Ray at %s already",
            address,
            ray.get_runtime_context().gcs_address,
        )
    node = ray.get_runtime_context().get_node_id()
    if _current is None or _current.node != node:
        _current = _Session(node, ours, local=cluster in (None, "local"))
    _current.members += 1


def leave() -> None:
    """Give the connection back; where a grid opened it, the last one closes it."""
    global _current
    if _current is None:
        return
    _current.members -= 1
    if _current.members > 0:
        return
    if _current.ours and ray.is_initialized() and ray.get_runtime_context().get_node_id() == _current.node:
        ray.shutdown()
    _current = None


def has_other_machines() -> bool:
    """Whether actors may land elsewhere: the cluster has other nodes, or was there before and may grow."""
    return len(ray.nodes()) > 1 or (_current is not None and not _current.local)


def machines() -> list[Machine]:
    """What the cluster's living nodes offer."""
    return [
        Machine(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]


def _connect(address: str | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        try:
            with quick_start(), sigterm_kept():
                ray.init(include_dashboard=False, **options)
        except Exception as error:  # Ray raises a bare Exception when its own processes are too slow to start
            raise FedmetaError(
                f"Ray did not start here ({error}): try again when the machine is less busy, or use engine inline"
            ) from error
        return
    try:
        if address == "local":
            with quick_start(), sigterm_kept():
                ray.init(address=address, include_dashboard=False, **options)
            return
        if address != "auto" and "://" not in address:
            _probe(address)
        with sigterm_kept():
            ray.init(address=address, **options)
    except (OSError, ValueError, RuntimeError, RayError, SystemExit) as error:
        raise ConfigurationError(
            f"no Ray cluster answers at engine.ray_address = '{address}' ({error}): start one with `ray start --head`, "
            "or leave the address away"
        ) from error


def _probe(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise ValueError("an address is host:port, such as 10.0.0.1:6379")
    socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
