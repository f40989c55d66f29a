"""The pool of client actors: starting, replacing and ending them."""

import logging
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import ray
import ray.cloudpickle
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from fedmeta.errors import ConfigurationError, FedmetaError
from simulations.engine import bootstrap, ray_session, segments
from simulations.engine.plan import Plan, fitting
from simulations.engine.segments import Placed, Probe, ReadSegments, SharedSegments
from simulations.engine.transport import IN_LINE, Packed
from simulations.engine.worker import Answer

log = logging.getLogger("fedmeta.engine")

PACKAGES = ("fedmeta", "clients", "server", "strategies", "simulations")
"""What an actor imports afresh from the driver's path."""


@dataclass
class Broadcast:
    """What several actors get, in the form that each can read; it is put into Ray's object store when one must."""

    packed: Packed
    placed: Placed | None
    stored: Any = None


class ActorPool:
    """As many places for actors as planned; a place is ready, starting, or empty.

    Args:
        plan: how many actors, and what each may use.
        settings: arguments of each actor's `Worker`.
        start_timeout: longest start of an actor [seconds].
        parcel: what actors on other machines need; None where there are none.
    """

    def __init__(
        self, plan: Plan, settings: dict[str, Any], start_timeout: float, parcel: dict[str, Any] | None = None
    ) -> None:
        self.plan = plan
        self.start_timeout = start_timeout
        self.starting: dict[Any, tuple[int, float]] = {}
        """Future of an actor's first word -> its place, and when waiting for it ends (monotonic seconds)."""
        self._settings, self._parcel = settings, parcel
        self._actors: list[Any] = [None] * plan.actors
        self._written = SharedSegments()
        self._read: list[ReadSegments | None] = [None] * plan.actors  # None: out of this process's reach
        self._warm: set[int] = set()
        self._shrunk = False
        for place in range(plan.actors):
            self.start(place)

    def start(self, place: int) -> None:
        """Begin to start an actor at a place, ending the one that is there."""
        self.drop(place)
        ray.cloudpickle.register_pickle_by_value(bootstrap)
        path = [os.path.abspath(folder) for folder in sys.path]
        remote: Any = ray.remote(bootstrap.Bootstrap)
        shares = remote.options(num_cpus=self.plan.cpus, num_gpus=self.plan.gpus, max_restarts=0)
        actor = shares.remote(path, PACKAGES, self._settings, self._parcel)
        self._actors[place] = actor
        self.starting[actor.ready.remote(self._written.probe)] = (place, time.monotonic() + self.start_timeout)

    def replace(self, place: int) -> None:
        """Begin to start an actor in the place of one that is gone, or leave it empty where the cluster shrank."""
        self.drop(place)
        if self._has_room():
            self.start(place)

    def _has_room(self) -> bool:
        """Whether the cluster as it is now holds one actor more than there are; says so once when it shrank."""
        living = sum(actor is not None for actor in self._actors)
        room = fitting(ray_session.machines(), self.plan.cpus, self.plan.gpus)
        if living < room:
            return True
        if not self._shrunk:
            log.warning(
                "the cluster shrank: it holds %d of the %d planned client actors, which take over the others' clients",
                room,
                self.plan.actors,
            )
        self._shrunk = True
        return False

    def drop(self, place: int) -> None:
        """End the actor at a place, whatever it is doing."""
        if self._actors[place] is not None and ray.is_initialized():
            ray.kill(self._actors[place], no_restart=True)
        self._actors[place] = None
        self._read[place] = None
        self._written.forget(place)
        self._warm.discard(place)
        self.starting = {future: entry for future, entry in self.starting.items() if entry[0] != place}

    def revive(self) -> None:
        """Begin to start actors at all empty places."""
        for place, actor in enumerate(self._actors):
            if actor is None:
                self.replace(place)

    def close(self) -> None:
        """End all actors."""
        for place in range(len(self._actors)):
            self.drop(place)
        self._written.close()

    def ready(self, place: int) -> bool:
        """Whether the actor at a place takes work."""
        return self._actors[place] is not None and all(place != other for other, _ in self.starting.values())

    def patience(self, place: int) -> float:
        """What an actor's next call may take beside its clients: its first loads what the app needs [seconds]."""
        return 0.0 if place in self._warm else self.start_timeout

    def answered(self, place: int) -> None:
        """Note that an actor has answered a call."""
        self._warm.add(place)

    def broadcast(self, packed: Packed) -> Broadcast:
        """Place what several actors will get; `settle` it when none will get it any more."""
        near = packed.nbytes >= IN_LINE and any(self._read)
        return Broadcast(packed, self._written.place(packed.parts) if near else None)

    def settle(self, broadcast: Broadcast) -> None:
        """Let go of what no actor will get any more."""
        if broadcast.placed is not None:
            self._written.settle(broadcast.placed)

    def submit(self, place: int, broadcast: Broadcast, jobs: Packed) -> Any:
        """Give packed jobs to an actor; returns the future of their deliveries, which `fetch` takes."""
        read = self._read[place]
        reading = sum(each.reading for each in self._read if each is not None)
        released = None if read is None or reading >= segments.MOST else read.released()
        return self._actors[place].run.remote(self._readable(place, broadcast), jobs, released)

    def _readable(self, place: int, broadcast: Broadcast) -> Any:
        if self._read[place] is not None and broadcast.placed is not None:
            return self._written.give(broadcast.placed, place)
        if broadcast.packed.nbytes < IN_LINE:
            return broadcast.packed
        if broadcast.stored is None:
            broadcast.stored = ray.put(broadcast.packed)
        return broadcast.stored

    def fetch(self, place: int, future: Any) -> Packed:
        """What an actor answered.

        Raises:
            RayError, Gone: it could not, or has died.
        """
        answer: Answer = ray.get(future)
        self._written.release(place, answer.released)
        if isinstance(answer.deliveries, Packed):
            return answer.deliveries
        read = self._read[place]
        assert read is not None
        return Packed.of(read.read(answer.deliveries))

    def confirm(self) -> None:
        """Wait until every actor that is starting is ready.

        Raises:
            FedmetaError: they did not start in time, or the app cannot be loaded there.
        """
        try:
            probes = ray.get(list(self.starting), timeout=self.start_timeout)
        except GetTimeoutError as error:
            free = ray.available_resources()
            raise ConfigurationError(
                f"{self.plan.describe()} did not start in engine.start_timeout = {self.start_timeout:g} s; "
                f"free now: {free.get('CPU', 0):g} CPUs, {free.get('GPU', 0):g} GPUs. Another job may hold the rest: "
                "lower engine.actors, or raise the limit"
            ) from error
        except RayError as error:
            raise _start_error(error) from None
        for (place, _), probe in zip(self.starting.values(), probes, strict=True):
            self._reach(place, probe)
        self.starting.clear()

    def arrived(self, future: Any) -> bool:
        """Take an actor's first word; one that could not start leaves its place empty."""
        place, _ = self.starting.pop(future)
        try:
            self._reach(place, ray.get(future))
        except RayError as error:
            log.warning("%s", _start_error(error))
            self.drop(place)
            return False
        return True

    def _reach(self, place: int, probe: Probe | None) -> None:
        if probe is not None and probe.succeeds():
            self._read[place] = ReadSegments()

    def expire(self) -> None:
        """Give up on actors that have been starting for too long; their places stay empty."""
        for place, limit in list(self.starting.values()):
            if time.monotonic() >= limit:
                log.warning("a client actor did not start in engine.start_timeout = %g s", self.start_timeout)
                self.drop(place)


def _start_error(error: RayError) -> FedmetaError:
    cause = error.cause if isinstance(error, RayTaskError) else error
    return cause if isinstance(cause, FedmetaError) else FedmetaError(f"a client actor cannot start: {cause}")
