"""Every touch of Ray's internals, in one place: a Ray that starts in half the time and leaves signals alone.

Where a Ray has no such inner parts, it starts as it would by itself; `tests/simulations/engine/test_ray_internals.py`
says so.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

UNUSED = ("start_api_server", "start_monitor", "start_log_monitor")
"""Starts of processes that nothing here asks: the server of the dashboard, which runs without one too, the autoscaler
of clusters in a cloud, and what reads the workers' output to the driver. Each takes half a second of CPU."""

NODE_SECONDS = 10.0
"""Longest wait of ours for a new node to register, before Ray's own."""


@contextmanager
def quick_start() -> Iterator[None]:
    """Within it `ray.init` starts a Ray of its own with the processes that are needed, and finds it at once."""
    with _without_unused(), _node_awaited():
        yield


@contextmanager
def sigterm_kept() -> Iterator[None]:
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
def _without_unused() -> Iterator[None]:
    from ray._private.node import Node

    kept = {name: getattr(Node, name) for name in UNUSED if hasattr(Node, name)}
    for name in kept:
        setattr(Node, name, _start_nothing)
    try:
        yield
    finally:
        for name, start in kept.items():
            setattr(Node, name, start)


def _start_nothing(*_: Any, **__: Any) -> None:
    """In place of a start."""


@contextmanager
def _node_awaited() -> Iterator[None]:
    """Within it Ray finds its new node as soon as that is there.

    `ray.init` asks for the node before it has registered, and then again only after whole seconds.
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
