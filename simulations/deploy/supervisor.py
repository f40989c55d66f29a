"""Seeing a deployed run through: submit it, watch it, and submit it again where its server process was lost.

Flower ends a run as failed about a minute after its ServerApp has gone, and does not go on with it. Ours goes on from
the checkpoint in its run directory when it is submitted again with the same `out`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from fedmeta.errors import FedmetaError
from simulations.deploy.flower import FlowerNode, FlowerRun, UnknownRun, Unreachable

Say = Callable[[str], None]
Answer = TypeVar("Answer")


class Link(Protocol):
    """What is asked of a SuperLink; `Flower` behind its command line."""

    def run(self, run_id: str) -> FlowerRun:
        """One run as it stands."""
        ...

    def nodes(self) -> list[FlowerNode]:
        """All SuperNodes, also those that are away."""
        ...


@dataclass(frozen=True)
class Patience:
    """How long a supervisor holds on.

    Attributes:
        resubmissions: most times that a lost run is submitted again.
        silence: longest time that the SuperLink may not answer [seconds].
        pause: between two looks [seconds].
        quiet: how long a run may wait to begin before it is said what for, and again after as long [seconds].
    """

    resubmissions: int = 10
    silence: float = 900.0
    pause: float = 5.0
    quiet: float = 30.0


def supervise(
    link: Link,
    submit: Callable[[], str],
    patience: Patience,
    say: Say,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> FlowerRun:
    """Submit a run, and again whenever it is lost, until it ends for a reason of its own.

    A run is lost where Flower misses its heartbeats, or where the SuperLink came back without any memory of it.

    Args:
        link: the SuperLink.
        submit: starts the run, always with the same run directory, and returns its id.
        patience: how long to hold on.
        say: told what happens, in lines for an operator.
        sleep, clock: how to pass and read the time [seconds].

    Returns:
        The run that ended, well or not.

    Raises:
        FedmetaError: the SuperLink was silent, or the run was lost, too often.
    """
    for attempt in range(patience.resubmissions + 1):
        run_id = _until_it_answers(submit, patience, say, sleep, clock)
        say(f"run {run_id} is submitted" + (f", for the {_times(attempt + 1)} time" if attempt else ""))
        try:
            ended = _watch(link, run_id, patience, say, sleep, clock)
        except UnknownRun:
            say(f"the SuperLink no longer knows run {run_id}: was it started without --database?")
            continue
        if not ended.lost:
            return ended
        say(f"run {run_id} was lost with its server process; it goes on from its last checkpoint")
    raise FedmetaError(
        f"the run was lost {patience.resubmissions + 1} times: look at the SuperLink's own log for why it dies, then "
        "submit it again with the same --out"
    )


def _watch(
    link: Link,
    run_id: str,
    patience: Patience,
    say: Say,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> FlowerRun:
    status, since = "", clock()
    while True:
        found = _until_it_answers(lambda: link.run(run_id), patience, say, sleep, clock)
        if found.status != status:
            say(f"run {run_id}: {found.status}" + (f" ({found.details})" if found.details else ""))
            status, since = found.status, clock()
            if status == "running":
                _say_nodes(link, say)
        elif status in WAITS and clock() - since >= patience.quiet:
            say(f"run {run_id} is still {status}: {WAITS[status]}")
            _say_nodes(link, say)
            since = clock()
        if found.finished:
            return found
        sleep(patience.pause)


WAITS = {
    "pending": "no server process has taken it. A SuperLink starts one by itself; with --isolation process, start "
    "`flower-superexec --plugin-type serverapp` beside it",
    "starting": "its server process is not up. The SuperLink's log says why: a machine with too much to do starts it "
    "late (`Runtime task-token authentication failed`), and installing the app's dependencies takes minutes "
    "(--disable-runtime-dependency-installation)",
}
"""What a run waits for that has not begun, by its status, and the remedy."""


def _say_nodes(link: Link, say: Say) -> None:
    """A run without SuperNodes waits, and only the SuperLink's log would say so."""
    try:
        nodes = link.nodes()
    except FedmetaError:  # Flower may not show them to everybody; the run goes on all the same
        return
    if not any(node.status == "online" for node in nodes):
        say(
            f"no SuperNode is online, of {len(nodes)} that the SuperLink knows: the run waits for them, "
            "deployment.node_timeout at most. Start `flower-supernode` on the clients' machines; `fedmeta deploy "
            "check` says there what is in its way"
        )


def _until_it_answers(
    ask: Callable[[], Answer], patience: Patience, say: Say, sleep: Callable[[float], None], clock: Callable[[], float]
) -> Answer:
    silent_since: float | None = None
    while True:
        try:
            return ask()
        except Unreachable as error:
            if silent_since is None:
                silent_since = clock()
                say(f"the SuperLink does not answer; trying for {patience.silence:g} s ({error})")
            elif clock() - silent_since > patience.silence:
                raise
            sleep(patience.pause)


def _times(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")
