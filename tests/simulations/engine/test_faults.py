"""What goes wrong with actors, machines and patience costs the clients concerned, and never a hang."""

import _thread
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import ray
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedmeta.errors import ConfigurationError, FedmetaError
from simulations import RayGrid
from simulations.engine.ray_round import _balanced

APP = "foreign_app:app"
SECONDS = 30
"""Far above what anything here takes, far below a hang."""

pytestmark = pytest.mark.usefixtures("apps", "ray_session")


def ask(grid: RayGrid, kind: str = "train", timeout: float | None = None, **config) -> list[Message]:
    """One message to every node, all with one content."""
    content = RecordDict(
        {"arrays": ArrayRecord({"w": Array(np.ones(3))}), "config": ConfigRecord({"round": 1, **config})}
    )
    return grid.send_and_receive([Message(content, node, kind) for node in grid.get_node_ids()], timeout=timeout)


def figures(replies: list[Message], name: str) -> list[float]:
    return [reply.content["metrics"][name] for reply in replies]


def test_a_killed_actor_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    """kill -9 in the midst of a round: the numbers are those of an undisturbed run."""
    marker = tmp_path / "marker"
    marker.touch()
    with RayGrid(APP, 6, actors=2) as grid:
        ask(grid)
        replies = ask(grid, "train.deadly", victim=2, marker=str(marker), once=True)
        assert not marker.exists(), "the actor was killed"
        assert figures(replies, "turns") == [2] * 6, "from the last committed state, each once"
        assert figures(ask(grid), "turns") == [3] * 6


def test_state_outlives_actors_that_are_killed_between_rounds() -> None:
    with RayGrid(APP, 4, actors=2) as grid:
        ask(grid)
        for pid in {reply.content["me"]["pid"] for reply in ask(grid, "query")}:
            os.kill(pid, signal.SIGKILL)
        assert figures(ask(grid), "turns") == [2] * 4


def test_a_client_that_always_kills_its_actor_fails_alone(tmp_path: Path) -> None:
    with RayGrid(APP, 4, actors=2) as grid:
        replies = ask(grid, "train.deadly", victim=1, marker=str(tmp_path / "none"), once=False)
    assert [reply.has_error() for reply in replies] == [False, True, False, False]
    assert "3 actors died while running this client" in (replies[1].error.reason or "")


def test_a_hanging_client_becomes_a_failed_reply() -> None:
    with RayGrid(APP, 4, actors=2) as grid:
        ask(grid)
        started = time.monotonic()
        replies = ask(grid, "train.hangs", timeout=2)
        assert time.monotonic() - started < SECONDS
        assert "time limit of 2 s" in (replies[0].error.reason or "") and not replies[1].has_error()
        assert not any(reply.has_error() for reply in ask(grid)), "the late actor was replaced"


def test_a_client_that_exceeds_its_time_costs_no_other() -> None:
    """Three clients share the hanging one's actor and its call: they run again, and it fails alone.

    Each that runs again may meet a fresh actor, whose first turn loads what the app needs and takes longer than a
    client may.
    """
    with RayGrid(APP, 4, actors=1, client_timeout=1, start_timeout=30) as grid:
        assert not any(reply.has_error() for reply in ask(grid, "train.cold", hang=False))
        started = time.monotonic()
        replies = ask(grid, "train.cold", hang=True)
        assert time.monotonic() - started < SECONDS
        assert [reply.has_error() for reply in replies] == [False, False, True, False]
        assert "client_timeout = 1 s" in (replies[2].error.reason or "")
        assert figures([*replies[:2], replies[3]], "turns") == [2] * 3, "each turn counts once"
    with pytest.raises(ConfigurationError, match="client_timeout = 0"):
        RayGrid(APP, 1, client_timeout=0)


def test_an_actor_that_cannot_be_replaced_leaves_its_clients_to_the_others() -> None:
    """Its CPU goes to somebody else; with the last actor gone, too, every client fails with the reason, in seconds."""

    @ray.remote(num_cpus=1)
    class Holder:
        def here(self) -> bool:
            return True

    def take_place_of(*places: int) -> list:
        for place in places:
            ray.kill(pool._actors[place])
        holders = [Holder.remote() for _ in places]
        ray.get([holder.here.remote() for holder in holders], timeout=SECONDS)
        return holders

    with RayGrid(APP, 4, actors=2, start_timeout=60) as grid:
        ask(grid)
        pool = grid._pool
        assert pool is not None
        pool.start_timeout, started = 3, time.monotonic()
        [holder] = take_place_of(0)
        assert not any(reply.has_error() for reply in ask(grid)), "the other one does it all"
        ray.kill(holder)
        while len([place for place in (0, 1) if pool.ready(place)]) < 2 and time.monotonic() < started + SECONDS:
            assert not any(reply.has_error() for reply in ask(grid))
            for future in ray.wait(list(pool.starting), timeout=1)[0] if pool.starting else ():
                pool.arrived(future)
        started = time.monotonic()
        holders = take_place_of(0, 1)
        replies = ask(grid)
        assert len(holders) == 2 and all("no client actor is left" in reply.error.reason for reply in replies)
        assert time.monotonic() - started < SECONDS


def test_shares_are_evened_out() -> None:
    shares = _balanced([[1, 2, 3, 4, 5], [], [6]])
    assert sorted(len(share) for share in shares) == [2, 2, 2]
    assert sorted(index for share in shares for index in share) == [1, 2, 3, 4, 5, 6]
    assert _balanced([[1], [2]]) == [[1], [2]], "clients that need not move stay with their actors"


def test_an_interrupt_leaves_a_grid_that_works() -> None:
    with RayGrid(APP, 2, actors=2) as grid:
        ask(grid)
        threading.Timer(1.0, _thread.interrupt_main).start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            ask(grid, "train.hangs")
        assert not any(reply.has_error() for reply in ask(grid)), "no actor is still at the interrupted round"
        assert time.monotonic() - started < SECONDS


def test_a_client_that_ends_its_process_fails_with_the_reason() -> None:
    with RayGrid(APP, 2, actors=1) as grid:
        replies = ask(grid, "train.exits")
    assert "SystemExit: 3 (foreign_app.py:" in (replies[0].error.reason or "") and not replies[1].has_error()


def test_large_state_and_replies_outlive_the_round_and_the_grid() -> None:
    """What lies in Ray's store is not what the driver keeps of a client."""
    with RayGrid(APP, 2, actors=1) as grid:
        first = ask(grid, "train.large")
        assert figures(ask(grid, "train.large"), "kept") == [1.0, 1.0]
        ray.get(ray.put(0))
    assert first[0].content["arrays"]["w"].numpy().sum() == 3
    assert type(grid._states[0]["large"]["w"]) is Array


def test_messages_but_training_go_to_whoever_is_idle() -> None:
    with RayGrid(APP, 6, actors=2) as grid:
        pids = [reply.content["me"]["pid"] for reply in ask(grid, "query")]
        assert os.getpid() not in pids and 1 <= len(set(pids)) <= 2


def test_resources_that_cannot_be_given_are_refused_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"cpus_per_client = 64.*2 CPUs and 0 GPUs"):
        RayGrid(APP, 4, cpus_per_client=64)
    with pytest.raises(ConfigurationError, match=r"gpus_per_client = 1"):
        RayGrid(APP, 4, gpus_per_client=1)
    assert time.monotonic() - started < 5


def test_actors_that_do_not_start_are_an_error_not_a_hang() -> None:
    with RayGrid(APP, 2, actors=2) as first:
        ask(first)
        with (
            RayGrid(APP, 2, actors=2, start_timeout=2) as second,
            pytest.raises(FedmetaError, match="start_timeout = 2"),
        ):
            ask(second)
    assert ray.is_initialized(), "a Ray that was there before is not ours to end"


def test_an_address_without_effect_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with RayGrid(APP, 1, ray_address="127.0.0.1:1"):
        assert any("has no effect" in record.message for record in caplog.records)


def test_an_app_that_is_nowhere_is_refused_before_actors_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its packages are looked for and not imported; what an import alone can tell, the first exchange says."""
    (tmp_path / "heavy").mkdir()
    (tmp_path / "heavy" / "__init__.py").write_text("")
    (tmp_path / "heavy" / "client.py").write_text("")
    (tmp_path / "moving").mkdir()
    (tmp_path / "moving" / "__init__.py").write_text("__path__.append(__path__[0] + '/elsewhere')")
    (tmp_path / "moving" / "elsewhere").mkdir()
    (tmp_path / "moving" / "elsewhere" / "client.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    for app, missing in (("nowhere.client:app", "nowhere"), ("heavy.server:app", "heavy.server")):
        with pytest.raises(ConfigurationError, match=f"there is no module '{missing}' where this process looks"):
            RayGrid(app, 2)
    for app in ("nowhere", ":app", "nowhere:"):
        with pytest.raises(ConfigurationError, match=r"must be 'package\.module:attribute'"):
            RayGrid(app, 2)
    sys.modules.pop("heavy")
    for app in ("heavy.client:app", "moving.client:app", "foreign_app:ap"):
        with RayGrid(app, 2, actors=1) as grid, pytest.raises(FedmetaError) as found:
            ask(grid)
        assert "heavy" not in sys.modules and not found.value.__cause__ and "ray" not in type(found.value).__module__
    assert "did you mean 'app'" in str(found.value)
