"""Waiting for the nodes of a deployment before a run starts."""

import logging
import time
from collections.abc import Callable

from flwr.serverapp import Grid

from fedmeta.errors import FedmetaError

log = logging.getLogger("fedmeta.server")


def wait_for_nodes(
    grid: Grid,
    wanted: int,
    timeout: float,
    *,
    least: int | None = None,
    pause: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Wait until so many nodes are there, and say how many there are.

    Args:
        grid: any.
        wanted: nodes to wait for, at least 1.
        timeout: longest wait [seconds].
        least: how many must be there in the end; None: all that are wanted.
        pause: between two looks [seconds].
        sleep: how to pass the time.

    Raises:
        FedmetaError: fewer were there in the end.
    """
    deadline, told = time.monotonic() + timeout, -1
    while True:
        count = len(list(grid.get_node_ids()))
        late = time.monotonic() >= deadline
        if count >= wanted:
            return count
        if late and count >= (wanted if least is None else least):
            log.warning("%d of %d nodes are there after %g s; the run goes on with them", count, wanted, timeout)
            return count
        if late:
            raise FedmetaError(
                f"{count} of {wanted} nodes were there after {timeout:g} s: start the others (`flwr supernode list` "
                "shows which are online), or lower deployment.nodes"
            )
        if count != told:
            log.info("%d of %d nodes are there; waiting up to %g s for the others", count, wanted, timeout)
            told = count
        sleep(pause)
