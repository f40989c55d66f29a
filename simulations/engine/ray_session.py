"""This process's connection to Ray, shared by all grids in it; the last to leave ends what the first began."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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

log = logging.getLogger("fedmeta.engine")

PROBE_SECONDS = 5.0
"""Longest wait for a cluster's address to answer; Ray itself would try for minutes and then end the process."""

NODE_SECONDS = 10.0
"""Longest wait of ours for a new node to register, before Ray's own."""


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
            with _node_awaited(), _sigterm_kept():
                ray.init(include_dashboard=False, **options)
        except Exception as error:  # Ray raises a bare Exception when its own processes are too slow to start
            raise FedmetaError(
                f"Ray did not start here ({error}): try again when the machine is less busy, or use engine inline"
            ) from error
        return
    try:
        if address == "local":
            options["include_dashboard"] = False
        elif address != "auto" and "://" not in address:
            _probe(address)
        with _sigterm_kept():
            ray.init(address=address, **options)
    except (OSError, ValueError, RuntimeError, RayError, SystemExit) as error:
        raise ConfigurationError(
            f"no Ray cluster answers at engine.ray_address = '{address}' ({error}): start one with `ray start --head`, "
            "or leave the address away"
        ) from error


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Leave SIGTERM to whoever has a handler for it.

    Ray takes it while it starts and when it has, and prints a trace of its own before it exits. Where nobody handles it
    that stays so: the process would end at once, and leave some of Ray's behind.
    """
    from ray._private import utils

    before, main = signal.getsignal(signal.SIGTERM), threading.current_thread() is threading.main_thread()
    taken: Any = getattr(utils, "set_sigterm_handler", None)
    if not callable(before) or not main or taken is None:
        yield
        return
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = taken
        signal.signal(signal.SIGTERM, before)  # Ray's compiled part has taken it as well


@contextmanager
def _node_awaited() -> Iterator[None]:
    """Within it Ray finds its new node as soon as that is there.

    `ray.init` asks for the node before it has registered, and then again only after whole seconds. Where a Ray has no
    such inner functions, nothing is changed.
    """
    from ray._private import services, state

    ask: Any = getattr(services, "get_node", None)
    options: Any = getattr(services, "_get_gcs_client_options", None)
    if ask is None or options is None or not hasattr(state.GlobalState, "_initialize_global_state"):
        yield
        return

    def get_node(gcs_address: str, node_id: str) -> Any:
        nodes = state.GlobalState()
        nodes._initialize_global_state(options(gcs_address))
        deadline = time.monotonic() + NODE_SECONDS
        while all(node["NodeID"] != node_id for node in nodes.node_table()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return ask(gcs_address, node_id)

    services.get_node = get_node
    try:
        yield
    finally:
        services.get_node = ask


def _probe(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise ValueError("an address is host:port, such as 10.0.0.1:6379")
    socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
