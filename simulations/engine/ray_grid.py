"""RayGrid: simulated clients on Ray actors."""

import gc
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.clientapp import ClientApp

from fedmeta.errors import ConfigurationError
from fedmeta.parameters import require_number
from simulations.engine import ray_session  # before Ray itself, for which it sets the environment
from simulations.engine.allocator import keep_freed_memory
from simulations.engine.app_reference import check_reference
from simulations.engine.executor import Outcome, Turn, generators_kept
from simulations.engine.local_grid import LocalGrid
from simulations.engine.parcel import make_parcel
from simulations.engine.plan import Plan, check_shares, make_plan
from simulations.engine.ray_pool import PACKAGES, ActorPool
from simulations.engine.ray_round import Round

log = logging.getLogger("fedmeta.engine")


class RayGrid(LocalGrid):
    """A grid that runs clients on Ray actors: `with RayGrid("my_app.client:app", num_clients=100) as grid: ...`.

    Actors start in the background; the first call that needs them waits. Each round's contents are placed once where
    all actors read them, every actor gets one call with all train messages of its clients, and clients stay with their
    actors. An actor that dies is replaced, and its clients run again from their committed state.

    While it is open, cycles of objects that were there before its first exchange are not garbage-collected.

    Args:
        app: `"package.module:attribute"` of a ClientApp, or a ClientApp, which is pickled by value where needed.
        num_clients: nodes; client i has partition id i.
        cpus_per_client: CPU share of one actor [cores].
        gpus_per_client: GPU share of one actor [GPUs]; 0.25 puts four on one.
        actors: none: as many as the cluster and the shares allow.
        ray_address: of a running cluster; None starts one here, or uses the one this process is connected to.
        start_timeout: longest wait for the actors to start [seconds].
        client_timeout: longest turn of one client [seconds]; None for no limit but the exchange's own. An actor that
            takes longer than its clients may together is replaced, and they run again each alone, so that only the
            one that hangs fails. An actor's first call, which loads what the app needs, may take `start_timeout` more.
        datasets: `fedmeta.data.delivered.data_key` -> a loaded data set, for actors on other machines.
        in_memory: the data lie in no file, and actors of this machine need them too.
        check, log_failures, run_config, seed: see `LocalGrid`.

    Raises:
        ConfigurationError: a share that fits no machine, an address where no cluster answers, or an app whose module is
            not there. One whose attribute is not there, or that cannot be imported, is refused by the first exchange.
    """

    plan: Plan
    """What runs where; `plan.describe()` says it in a line."""

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
        client_timeout: float | None = None,
        datasets: Mapping[str, Any] | None = None,
        in_memory: bool = False,
        check: bool = True,
        log_failures: bool = True,
        run_config: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(app, num_clients, check=check, log_failures=log_failures, run_config=run_config, seed=seed)
        self._pool: ActorPool | None = None
        self._confirmed = self._froze = False
        check_shares(cpus_per_client, gpus_per_client, actors)
        for name, limit in (("start_timeout", start_timeout), ("client_timeout", client_timeout)):
            if limit is not None or name == "start_timeout":
                require_number(name, limit)
            if limit is not None and not limit > 0:
                unlimited = "; None for no limit" if name == "client_timeout" else ""
                raise ConfigurationError(f"{name} = {limit} must be above 0 seconds{unlimited}")
        self._client_timeout = client_timeout
        keep_freed_memory()
        with generators_kept():  # Ray draws from them when it starts, and so would what a strategy draws depend on it
            ray_session.join(ray_address)
        try:
            if isinstance(app, str) and not ray_session.has_other_machines():  # which may have what is not here
                check_reference(app)
            self.plan = make_plan(
                ray_session.machines(),
                cpus_per_client=cpus_per_client,
                gpus_per_client=gpus_per_client,
                clients=num_clients,
                actors=actors,
            )
            log.info("%s", self.plan.describe())
            travels = in_memory or ray_session.has_other_machines()
            parcel = make_parcel(PACKAGES, app, datasets or {}, everywhere=in_memory) if travels else None
            self._pool = ActorPool(self.plan, _settings(app, self._run_config, check), start_timeout, parcel)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the actors, and Ray where this grid is the last of those that started it; may be called again."""
        if self._closed:
            return
        super().close()
        if self._pool is not None:
            self._pool.close()
        if self._froze:
            gc.unfreeze()
        with generators_kept():
            ray_session.leave()

    def _set_aside(self) -> None:
        """Leave what is there by now out of garbage collections: to walk through it took 0.1 s now and again."""
        gc.collect()
        self._froze = gc.get_freeze_count() == 0  # else somebody else did, and will undo it
        if self._froze:
            gc.freeze()

    def _execute(self, turns: Sequence[Turn], timeout: float | None) -> list[Outcome]:
        assert self._pool is not None
        if self._confirmed:
            self._pool.revive()
        else:
            self._set_aside()  # while actors start
            self._pool.confirm()
            self._confirmed = True
        return Round(self._pool, turns, timeout, self._client_timeout).play()


def _settings(app: str | ClientApp, run_config: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Arguments of a Worker."""
    from ray import cloudpickle

    pickled = app if isinstance(app, str) else cloudpickle.dumps(app)
    return {"app": pickled, "run_config": dict(run_config), "check": check}
