"""One exchange over a pool of actors: which turns wait, which are out, and what came back."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from flwr.app import RecordDict
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from simulations.engine.executor import Outcome, Turn
from simulations.engine.flower_internals import CLIENT_APP_CRASHED, error_reply
from simulations.engine.local_grid import deadline_after
from simulations.engine.ray_pool import ActorPool
from simulations.engine.segments import Gone
from simulations.engine.transport import Packed, pack, unpack
from simulations.engine.worker import Job, received

log = logging.getLogger("fedmeta.engine")

ATTEMPTS = 3
"""Actors that may die over the same turns before these count as failed: the client itself may be what kills them."""

CHUNKS_PER_ACTOR = 8
"""Turns that are not trained as a cohort go out in small chunks, to whichever actor is idle."""

LOST = (
    RayActorError,
    ObjectLostError,
    OutOfMemoryError,
    NodeDiedError,
    WorkerCrashedError,
    LocalRayletDiedError,
    Gone,
)
"""What says that an actor is gone, or what it answered."""


@dataclass(frozen=True)
class _Call:
    """What an actor is at: its place, which turns, and when patience with it ends (monotonic seconds)."""

    place: int
    members: list[int]
    limit: float


class Round:
    """An exchange; `play` runs it.

    Args:
        pool: of actors.
        turns: one each message.
        timeout: seconds; None for no limit.
        client_timeout: of one turn [seconds]; None for no limit.
    """

    def __init__(
        self, pool: ActorPool, turns: Sequence[Turn], timeout: float | None, client_timeout: float | None = None
    ) -> None:
        self._pool, self._turns = pool, turns
        self._timeout, self._deadline = timeout, deadline_after(timeout)
        self._client_timeout = client_timeout
        self._outcomes: dict[int, Outcome] = {}
        self._deaths = [0] * len(turns)
        self._running: dict[Any, _Call] = {}
        self._own: list[deque[list[int]]] = [deque() for _ in range(pool.plan.actors)]
        self._anyone: deque[list[int]] = deque()
        contents, self._jobs = _packed(turns)
        self._broadcast = pool.broadcast(contents)
        self._divide()

    def _divide(self) -> None:
        """Train turns to their clients' own actors, one call each; others in chunks for whoever is idle."""
        actors = self._pool.plan.actors
        others = []
        bound: list[list[int]] = [[] for _ in range(actors)]
        for index, turn in enumerate(self._turns):
            if turn.message.metadata.message_type.split(".")[0] == "train":
                bound[int(turn.context.node_config["partition-id"]) % actors].append(index)
            else:
                others.append(index)
        for place, members in enumerate(_balanced(bound)):
            if members:
                self._own[place].append(members)
        size = max(1, len(others) // (actors * CHUNKS_PER_ACTOR))
        self._anyone.extend(others[i : i + size] for i in range(0, len(others), size))

    def play(self) -> list[Outcome]:
        """Run everything; returns outcomes in the order of the turns.

        An interrupt ends the actors that are at work, so that no later exchange waits for them.
        """
        try:
            self._feed_idle()
            while self._running or self._waiting():
                self._step()
        except BaseException:
            for call in self._running.values():
                self._pool.drop(call.place)
            raise
        finally:
            self._pool.settle(self._broadcast)
        return [self._outcomes[index] for index in range(len(self._turns))]

    def _step(self) -> None:
        """Wait for one thing to happen, and deal with it."""
        futures = [*self._running, *self._pool.starting]
        if not futures:
            self._fail_waiting("no client actor is left, and none could be started")
            return
        limits = [call.limit for call in self._running.values()]
        limits += [limit for _, limit in self._pool.starting.values()]
        left = min([self._deadline, *limits]) - time.monotonic()
        done, _ = ray.wait(futures, num_returns=1, timeout=None if left == float("inf") else max(0.0, left))
        if done and done[0] in self._running:
            self._collect(done[0])
        elif done:
            self._pool.arrived(done[0])
        elif time.monotonic() >= self._deadline:
            self._give_up()
        else:
            self._pool.expire()
            self._end_late_calls()
        self._feed_idle()

    def _waiting(self) -> bool:
        return any([self._anyone, *self._own])

    def _feed_idle(self) -> None:
        """Give idle actors what waits: their own clients, then anybody's, then what waits for a busy or lost actor."""
        busy = {call.place for call in self._running.values()}
        idle = [p for p in range(self._pool.plan.actors) if p not in busy and self._pool.ready(p)]
        chosen = {place: self._own[place].popleft() for place in idle if self._own[place]}
        for place in idle:
            queue = next((queue for queue in (self._anyone, *self._own) if queue), None)
            if place not in chosen and queue is not None:
                chosen[place] = queue.popleft()
        # Packed before the first is sent: the actor that gets it competes with this process for the cores.
        packed = [pack([self._jobs[index] for index in members]) for members in chosen.values()]
        for (place, members), jobs in zip(chosen.items(), packed, strict=True):
            future = self._pool.submit(place, self._broadcast, jobs)
            self._running[future] = _Call(place, members, self._limit(place, len(members)))

    def _limit(self, place: int, clients: int) -> float:
        if self._client_timeout is None:
            return float("inf")
        return deadline_after(self._client_timeout * clients + self._pool.patience(place))

    def _collect(self, future: Any) -> None:
        call = self._running[future]  # until it is read: what an interrupt leaves unread ends with its actor
        place, members = call.place, call.members
        try:
            deliveries = unpack(self._pool.fetch(place, future))
        except LOST as error:
            self._pool.replace(place)
            self._again(place, members, str(error).splitlines()[0])
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            self._alone_or_failed(place, members, f"the engine could not run this client: {cause}")
        else:
            self._pool.answered(place)
            for index, delivery in zip(members, deliveries, strict=True):
                self._outcomes[index] = received(delivery, self._turns[index].context.state)
        del self._running[future]

    def _again(self, place: int, members: list[int], why: str) -> None:
        """Put the turns of a dead actor back: together, and after a second death each alone, to find the deadly one."""
        log.warning("a client actor died and is replaced; its %d clients run again: %s", len(members), why)
        for index in members:
            self._deaths[index] += 1
        self._fail(
            [index for index in members if self._deaths[index] >= ATTEMPTS],
            f"{ATTEMPTS} actors died while running this client",
        )
        left = [index for index in members if self._deaths[index] < ATTEMPTS]
        if left and all(self._deaths[index] == 1 for index in left):
            self._own[place].append(left)
        else:
            self._own[place].extend([index] for index in left)

    def _alone_or_failed(self, place: int, members: list[int], reason: str) -> None:
        """What the engine cannot run for many it may run for each; what it cannot run for one has failed."""
        if len(members) == 1:
            self._fail(members, reason)
        else:
            self._own[place].extend([index] for index in members)

    def _end_late_calls(self) -> None:
        """End actors that take longer than their clients may: these run again each alone, and who hangs then failed."""
        for future, call in list(self._running.items()):
            if time.monotonic() < call.limit:
                continue
            del self._running[future]
            self._pool.replace(call.place)
            reason = f"no reply within client_timeout = {self._client_timeout:g} s"
            if len(call.members) > 1:
                log.warning(
                    "%d clients took longer than they may together, and run again each alone", len(call.members)
                )
            self._alone_or_failed(call.place, call.members, reason)

    def _give_up(self) -> None:
        """What is not done by now becomes an error, and late actors are ended, so that nothing waits for them."""
        reason = f"no reply within the time limit of {self._timeout:g} s"
        for call in self._running.values():
            self._pool.replace(call.place)
            self._fail(call.members, reason)
        self._running.clear()
        self._fail_waiting(reason)

    def _fail_waiting(self, reason: str) -> None:
        for queue in [*self._own, self._anyone]:
            for members in queue:
                self._fail(members, reason)
            queue.clear()

    def _fail(self, members: Sequence[int], reason: str) -> None:
        for index in members:
            turn = self._turns[index]
            self._outcomes[index] = Outcome(error_reply(turn.message, CLIENT_APP_CRASHED, reason), turn.context.state)


def _balanced(bound: list[list[int]]) -> list[list[int]]:
    """Even out actors' shares: turns of the fullest go to the emptiest until they differ by at most one."""
    shares = [list(members) for members in bound]
    while True:
        most, least = max(shares, key=len), min(shares, key=len)
        if len(most) - len(least) <= 1:
            return shares
        least.append(most.pop())


def _packed(turns: Sequence[Turn]) -> tuple[Packed, list[Job]]:
    """Distinct contents, by identity, and jobs that point to them."""
    places: dict[int, int] = {}
    contents: list[RecordDict] = []
    jobs = []
    for turn in turns:
        content = turn.message.content
        if id(content) not in places:
            places[id(content)] = len(contents)
            contents.append(content)
        state = turn.context.state if len(turn.context.state) else None
        config = dict(turn.context.node_config)
        jobs.append(Job(turn.message.metadata, places[id(content)], config, state, turn.seed))
    return pack(contents), jobs
