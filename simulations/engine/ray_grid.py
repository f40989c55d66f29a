"""RayGrid: simulated clients on Ray actors."""

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

# Read by Ray when it is imported: a worker must not rebuild an environment, and nothing reports home.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import ray.cloudpickle
from flwr.app import RecordDict
from flwr.clientapp import ClientApp
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from fedmeta.errors import ConfigurationError, FedmetaError
from simulations.engine import bootstrap
from simulations.engine.executor import Outcome, Turn
from simulations.engine.flower_internals import CLIENT_APP_CRASHED, error_reply
from simulations.engine.local_grid import LocalGrid, deadline_after
from simulations.engine.plan import Machine, Plan, make_plan
from simulations.engine.worker import Job

log = logging.getLogger("fedmeta.engine")

PACKAGES = ("fedmeta", "clients", "server", "strategies", "simulations")
ATTEMPTS = 3
"""Actors that may die over the same turns before these count as failed: the client itself may be what kills them."""

CHUNKS_PER_ACTOR = 8
"""Turns that are not trained as a cohort go out in small chunks, to whichever actor is idle."""


class RayGrid(LocalGrid):
    """A grid that runs clients on Ray actors: `with RayGrid("my_app.client:app", num_clients=100) as grid: ...`.

    Actors start in the background; the first call that needs them waits. Each round's contents go into the object store
    once, every actor gets one call with all train messages of its clients, and clients stay with their actors. An actor
    that dies is replaced, and its clients run again from their committed state.

    Args:
        app: `"package.module:attribute"` of a ClientApp, or a ClientApp, which is pickled by value where needed.
        num_clients: nodes; client i has partition id i.
        cpus_per_client: CPU share of one actor [cores].
        gpus_per_client: GPU share of one actor [GPUs]; 0.25 puts four on one.
        actors: none: as many as the cluster and the shares allow.
        ray_address: of a running cluster; None starts one here, or uses the one this process is connected to.
        start_timeout: longest wait for the actors to start [seconds].
        check, log_failures, run_config, seed: see `LocalGrid`.

    Raises:
        ConfigurationError: a share that fits no machine, or an address where no cluster answers.
    """

    def __init__(
        self,
        app: str | ClientApp,
        num_clients: int,
        *,
        cpus_per_client: float = 1.0,
        gpus_per_client: float = 0.0,
        actors: int | None = None,
        ray_address: str | None = None,
        start_timeout: float = 60.0,
        check: bool = True,
        log_failures: bool = True,
        run_config: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(app, num_clients, check=check, log_failures=log_failures, run_config=run_config, seed=seed)
        self._start_timeout = start_timeout
        self._started_ray = _connect(ray_address)
        self._actors: list[Any] = []
        self._confirmed = False
        try:
            self.plan: Plan = make_plan(
                _machines(),
                cpus_per_client=cpus_per_client,
                gpus_per_client=gpus_per_client,
                clients=num_clients,
                actors=actors,
            )
            log.info("%s", self.plan.describe())
            self._settings = {
                "app": app if isinstance(app, str) else ray.cloudpickle.dumps(app),
                "run_config": self._run_config,
            }
            self._actors = [self._new_actor() for _ in range(self.plan.actors)]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the actors, and Ray where this grid started it; may be called again."""
        if self._closed:
            return
        super().close()
        if ray.is_initialized():
            for actor in self._actors:
                ray.kill(actor, no_restart=True)
            if self._started_ray:
                ray.shutdown()
        self._actors = []

    def _new_actor(self) -> Any:
        ray.cloudpickle.register_pickle_by_value(bootstrap)
        remote = ray.remote(bootstrap.Bootstrap).options(
            num_cpus=self.plan.cpus, num_gpus=self.plan.gpus, max_restarts=0
        )
        return remote.remote(list(sys.path), PACKAGES, self._settings)

    def _confirm(self) -> None:
        """Wait for the actors' first word, once.

        Raises:
            FedmetaError: they did not start in time, or the app cannot be loaded there.
        """
        if self._confirmed:
            return
        try:
            ray.get([actor.ready.remote() for actor in self._actors], timeout=self._start_timeout)
        except GetTimeoutError as error:
            free = ray.available_resources()
            raise ConfigurationError(
                f"{self.plan.describe()} did not start in engine.start_timeout = {self._start_timeout:g} s; "
                f"free now: {free.get('CPU', 0):g} CPUs, {free.get('GPU', 0):g} GPUs. Another job may hold the rest: "
                "lower engine.actors, or raise the limit"
            ) from error
        except RayTaskError as error:
            cause = error.cause
            raise (
                cause if isinstance(cause, FedmetaError) else FedmetaError(f"a client actor cannot start: {error}")
            ) from None
        except RayError as error:
            raise FedmetaError(f"a client actor died while starting: {error}") from error
        self._confirmed = True

    def _execute(self, turns: Sequence[Turn], timeout: float | None) -> list[Outcome]:
        self._confirm()
        return _Round(self, turns, deadline_after(timeout), timeout).play()

    def replace(self, actor: int) -> None:
        """End an actor and start another in its place."""
        ray.kill(self._actors[actor], no_restart=True)
        self._actors[actor] = self._new_actor()

    def submit(self, actor: int, contents: Any, jobs: list[Job]) -> Any:
        """Start jobs on an actor; returns the future of their outcomes."""
        return self._actors[actor].run.remote(contents, jobs)


class _Round:
    """One exchange: which turns wait, which are out on which actor, and what came back."""

    def __init__(self, grid: RayGrid, turns: Sequence[Turn], deadline: float, timeout: float | None) -> None:
        self.grid, self.turns, self.deadline, self.timeout = grid, turns, deadline, timeout
        self.outcomes: dict[int, Outcome] = {}
        self.deaths = [0] * len(turns)
        self.contents, self.jobs = _packed(turns)
        self.running: dict[Any, tuple[int, list[int]]] = {}
        self.own: list[deque[list[int]]] = [deque() for _ in range(grid.plan.actors)]
        self.anyone: deque[list[int]] = deque()
        self._divide()

    def _divide(self) -> None:
        """Train turns to their clients' own actors, one call each; others in chunks for whoever is idle."""
        actors = self.grid.plan.actors
        others = []
        bound: list[list[int]] = [[] for _ in range(actors)]
        for index, turn in enumerate(self.turns):
            if turn.message.metadata.message_type.split(".")[0] == "train":
                bound[int(turn.context.node_config["partition-id"]) % actors].append(index)
            else:
                others.append(index)
        for actor, members in enumerate(_balanced(bound)):
            if members:
                self.own[actor].append(members)
        size = max(1, len(others) // (actors * CHUNKS_PER_ACTOR))
        self.anyone.extend(others[i : i + size] for i in range(0, len(others), size))

    def play(self) -> list[Outcome]:
        """Run everything; returns outcomes in the order of the turns."""
        for actor in range(self.grid.plan.actors):
            self._feed(actor)
        while self.running:
            left = self.deadline - time.monotonic()
            done, _ = ray.wait(
                list(self.running), num_returns=1, timeout=None if left == float("inf") else max(0.0, left)
            )
            if not done:
                self._give_up()
                break
            self._collect(done[0])
        return [self.outcomes[index] for index in range(len(self.turns))]

    def _feed(self, actor: int) -> None:
        queue = self.own[actor] or self.anyone
        if queue:
            members = queue.popleft()
            future = self.grid.submit(actor, self.contents, [self.jobs[i] for i in members])
            self.running[future] = (actor, members)

    def _collect(self, future: Any) -> None:
        actor, members = self.running.pop(future)
        try:
            self.outcomes.update(zip(members, ray.get(future), strict=True))
        except RayActorError as error:
            self.grid.replace(actor)
            self._again(actor, members, str(error).splitlines()[0])
        except RayError as error:
            self._fail(members, f"the engine could not run this client: {error}")
        self._feed(actor)

    def _again(self, actor: int, members: list[int], why: str) -> None:
        """Put the turns of a dead actor back, each alone after the first death, so that a deadly client is found."""
        log.warning("a client actor died and is replaced; its %d clients run again: %s", len(members), why)
        for index in members:
            self.deaths[index] += 1
        hopeless = [index for index in members if self.deaths[index] >= ATTEMPTS]
        self._fail(hopeless, f"{ATTEMPTS} actors died while running this client")
        for index in members:
            if index not in hopeless:
                self.own[actor].append([index])

    def _give_up(self) -> None:
        """What is not done by now becomes an error, and late actors are ended, so that nothing waits for them."""
        reason = f"no reply within the time limit of {self.timeout:g} s"
        for actor, members in self.running.values():
            self.grid.replace(actor)
            self._fail(members, reason)
        for queue in [*self.own, self.anyone]:
            for members in queue:
                self._fail(members, reason)
        self.running.clear()

    def _fail(self, members: Sequence[int], reason: str) -> None:
        for index in members:
            turn = self.turns[index]
            self.outcomes[index] = Outcome(error_reply(turn.message, CLIENT_APP_CRASHED, reason), turn.context.state)


def _balanced(bound: list[list[int]]) -> list[list[int]]:
    """Even out actors' shares: turns of the fullest go to the emptiest until they differ by at most one."""
    shares = [list(members) for members in bound]
    while True:
        most, least = max(shares, key=len), min(shares, key=len)
        if len(most) - len(least) <= 1:
            return shares
        least.append(most.pop())


def _packed(turns: Sequence[Turn]) -> tuple[Any, list[Job]]:
    """Distinct contents, by identity, in the object store; and one job a turn that points to them."""
    places: dict[int, int] = {}
    contents: list[RecordDict] = []
    jobs = []
    for turn in turns:
        content = turn.message.content
        if id(content) not in places:
            places[id(content)] = len(contents)
            contents.append(content)
        state = turn.context.state if len(turn.context.state) else None
        jobs.append(Job(turn.message.metadata, places[id(content)], dict(turn.context.node_config), state, turn.seed))
    return ray.put(contents), jobs


def _connect(address: str | None) -> bool:
    """Connect to Ray; returns whether this call started a cluster or connection that is ours to end."""
    if ray.is_initialized():
        if address is not None:
            log.warning("engine.ray_address = '%s' is not used: this process is connected to Ray already", address)
        return False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        try:
            ray.init(include_dashboard=False, **options)
        except Exception as error:  # Ray raises a bare Exception when its own processes are too slow to start
            raise FedmetaError(
                f"Ray did not start here ({error}): try again when the machine is less busy, or use engine inline"
            ) from error
        return True
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        raise ConfigurationError(
            f"no Ray cluster answers at engine.ray_address = '{address}' ({error}): start one with `ray start --head`, "
            "or leave the address away"
        ) from error
    return True


def _machines() -> list[Machine]:
    return [
        Machine(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]
