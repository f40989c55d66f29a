"""One suite for every engine: a grid is a grid, whatever runs beneath."""

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedmeta.errors import ConfigurationError, FedmetaError
from simulations import InlineGrid, RayGrid
from simulations.engine.local_grid import LocalGrid

Engine = Callable[..., LocalGrid]
ENGINES = {
    "inline": InlineGrid,
    "ray": functools.partial(RayGrid, actors=2),
}


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest, apps: Path) -> Engine:
    if request.param != "inline":
        request.getfixturevalue("ray_session")
    return ENGINES[request.param]


@pytest.fixture
def ray_grid(apps: Path, ray_session: None) -> Engine:
    return ENGINES["ray"]


def ask(grid: LocalGrid, kind: str = "train", **config) -> list[Message]:
    """One message to every node, all with one content."""
    content = RecordDict(
        {"arrays": ArrayRecord({"w": Array(np.ones(3))}), "config": ConfigRecord({"round": 1, **config})}
    )
    return grid.send_and_receive([Message(content, node, kind) for node in grid.get_node_ids()])


def figures(replies: list[Message], name: str) -> list[float]:
    return [reply.content["metrics"][name] for reply in replies]


def test_each_client_owns_what_it_received(engine: Engine) -> None:
    """F05: ten clients double the array of ones in place; all saw 1, all reply 2, and the server's stays 1."""
    with engine("foreign_app:app", 10) as grid:
        content = RecordDict({"arrays": ArrayRecord({"w": Array(np.ones(3))}), "config": ConfigRecord({"round": 1})})
        replies = grid.send_and_receive([Message(content, node, "train") for node in grid.get_node_ids()])
    assert figures(replies, "seen") == [1.0] * 10
    assert all((reply.content["arrays"]["w"].numpy() == 2).all() for reply in replies)
    assert (content["arrays"]["w"].numpy() == 1).all()


def test_replies_come_in_order_and_say_what_they_answer(engine: Engine) -> None:
    with engine("foreign_app:app", 7) as grid:
        content = RecordDict({"config": ConfigRecord({"round": 1})})
        messages = [Message(content, node, "query") for node in reversed(list(grid.get_node_ids()))]
        replies = grid.send_and_receive(iter(messages))
        assert [reply.metadata.reply_to_message_id for reply in replies] == [m.metadata.message_id for m in messages]
        assert [reply.content["me"]["partition"] for reply in replies] == [6, 5, 4, 3, 2, 1, 0]
        assert grid.send_and_receive([]) == []
        ids = list(grid.push_messages(messages[:2]))
        assert [reply.metadata.reply_to_message_id for reply in grid.pull_messages(ids)] == ids


def test_state_is_kept_for_each_client(engine: Engine) -> None:
    with engine("foreign_app:app", 3) as grid:
        node = list(grid.get_node_ids())[1]
        content = RecordDict({"arrays": ArrayRecord({"w": Array(np.ones(3))}), "config": ConfigRecord({"round": 1})})
        grid.send_and_receive([Message(content, node, "train")])
        assert figures(ask(grid), "turns") == [1, 2, 1]


def test_a_failure_is_named_and_costs_one_client(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """F06: client 3 raises in round 2; its reason is in the reply and once in the log."""
    with engine("foreign_app:app", 5) as grid:
        assert not any(reply.has_error() for reply in ask(grid, "train.raises"))
        replies = ask(grid, "train.raises", round=2)
    assert [reply.has_error() for reply in replies] == [False, False, False, True, False]
    assert "ValueError: no column age (foreign_app.py:" in (replies[3].error.reason or "")
    lines = [record.message for record in caplog.records if "no column age" in record.message]
    assert len(lines) == 1 and lines[0].startswith("1 client (3): ValueError")


def test_alike_failures_are_one_line(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with engine("foreign_app:app", 200) as grid:
        ask(grid, "train.all_raise")
    lines = [record.message for record in caplog.records if "no column age" in record.message]
    assert len(lines) == 1 and lines[0].startswith("200 clients (0, 1, 2, 3, 4, ...)")


def test_a_failed_turn_leaves_the_state_as_it_was(engine: Engine) -> None:
    with engine("foreign_app:app", 4) as grid:
        ask(grid, "train.raises")
        ask(grid, "train.raises", round=2)
        assert figures(ask(grid), "turns") == [3, 3, 3, 2]


def test_poisonous_replies_never_reach_a_strategy(engine: Engine) -> None:
    with engine("foreign_app:app", 8) as grid:
        reasons = [reply.error.reason if reply.has_error() else "" for reply in ask(grid, "train.poison")]
    assert "3 values that are NaN" in reasons[0] and "float64 (2,), not float64 (3,)" in reasons[1]
    assert "metrics" in reasons[2] and reasons[3] == ""


def test_flowers_own_strategy_runs_unchanged(engine: Engine) -> None:
    with engine("foreign_app:app", 4) as grid:
        strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=4)
        result = strategy.start(grid=grid, initial_arrays=ArrayRecord({"w": Array(np.ones(3))}), num_rounds=3)
    assert result.arrays["w"].numpy().tolist() == [8.0, 8.0, 8.0]


def test_every_turn_has_global_generators_of_its_own(engine: Engine) -> None:
    """Neither does one client's seed reach another, nor do clients that draw without seeding all draw the same."""

    def draws(grid: LocalGrid, round: int) -> list[float]:
        content = RecordDict({"config": ConfigRecord({"round": round})})
        messages = [Message(content, node, "query.global_draw") for node in grid.get_node_ids()]
        return [reply.content["me"]["before"] for reply in grid.send_and_receive(messages)]

    with engine("foreign_app:app", 3, seed=5) as grid:
        found = [draw for round in (1, 2, 2) for draw in draws(grid, round)]
    assert len(set(found)) == 9 and 0.5488135039273248 not in found
    with engine("foreign_app:app", 3, seed=5) as grid:
        assert draws(grid, 1) == found[:3]


def test_cohorts_are_whole_and_one_failing_member_costs_one(engine: Engine) -> None:
    with engine("cohort_app:app", 6) as grid:
        content = RecordDict({"config": ConfigRecord({"fail": False})})
        sizes = [
            r.content["m"]["cohort"]
            for r in grid.send_and_receive([Message(content, n, "train") for n in grid.get_node_ids()])
        ]
        assert set(sizes) == ({6} if getattr(grid, "plan", None) is None or grid.plan.actors == 1 else {3})
        failing = RecordDict({"config": ConfigRecord({"fail": True})})
        replies = grid.send_and_receive([Message(failing, n, "train") for n in grid.get_node_ids()])
        assert [reply.has_error() for reply in replies] == [False, False, True, False, False, False]


def test_a_cohort_app_with_a_lifespan_is_called_message_by_message(engine: Engine) -> None:
    with engine("cohort_app:modded", 4) as grid:
        content = RecordDict({"config": ConfigRecord({"fail": False})})
        replies = grid.send_and_receive([Message(content, node, "train") for node in grid.get_node_ids()])
    assert [reply.content["m"]["cohort"] for reply in replies] == [1, 1, 1, 1]


def test_an_app_object_works_too(engine: Engine) -> None:
    import foreign_app  # type: ignore[import-not-found]

    with engine(foreign_app.app, 2) as grid:
        assert figures(ask(grid), "seen") == [1.0, 1.0]


def test_unknown_nodes_and_closed_grids(engine: Engine) -> None:
    with engine("foreign_app:app", 2) as grid:
        [reply] = grid.send_and_receive([Message(RecordDict(), 77, "query")])
        assert "no node 77" in (reply.error.reason or "")
    grid.close()
    with pytest.raises(FedmetaError, match="closed"):
        ask(grid)
    with pytest.raises(ConfigurationError, match="num_clients = 0"):
        engine("foreign_app:app", 0)


@pytest.mark.parametrize("reference", ["foreign_app", "nowhere:app", "foreign_app:ap", "foreign_app:os"])
def test_an_app_that_cannot_be_loaded_is_an_error_in_seconds(engine: Engine, reference: str) -> None:
    with pytest.raises(ConfigurationError, match="app = "), engine(reference, 2) as grid:
        ask(grid)


def test_a_killed_actor_is_replaced_and_nothing_is_lost(ray_grid: Engine, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with ray_grid("foreign_app:app", 6) as grid:
        ask(grid)
        marker.touch()
        replies = ask(grid, "train.deadly", victim=2, marker=str(marker), once=True)
        assert not marker.exists(), "the actor was killed"
        assert figures(replies, "turns") == [2] * 6, "from the last committed state, each once"
        assert figures(ask(grid), "turns") == [3] * 6


def test_a_client_that_always_kills_its_actor_fails_alone(ray_grid: Engine, tmp_path: Path) -> None:
    with ray_grid("foreign_app:app", 4) as grid:
        replies = ask(grid, "train.deadly", victim=1, marker=str(tmp_path / "none"), once=False)
    assert [reply.has_error() for reply in replies] == [False, True, False, False]
    assert "3 actors died while running this client" in (replies[1].error.reason or "")


def test_a_hanging_client_becomes_a_failed_reply(ray_grid: Engine) -> None:
    with ray_grid("foreign_app:app", 4) as grid:
        ask(grid)
        content = RecordDict({"arrays": ArrayRecord({"w": Array(np.ones(3))}), "config": ConfigRecord({"round": 1})})
        started = time.monotonic()
        replies = grid.send_and_receive(
            [Message(content, node, "train.hangs") for node in grid.get_node_ids()], timeout=3
        )
        assert time.monotonic() - started < 20
        assert "time limit of 3 s" in (replies[0].error.reason or "") and not replies[1].has_error()
        assert not any(reply.has_error() for reply in ask(grid)), "the late actor was replaced"


def test_clients_stay_with_their_actors(ray_grid: Engine) -> None:
    with ray_grid("foreign_app:app", 6) as grid:
        pids = {reply.content["me"]["pid"] for reply in ask(grid, "query")}
        assert os.getpid() not in pids and 1 <= len(pids) <= 2


def test_resources_that_cannot_be_given_are_refused_at_once(ray_session: None, apps: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"cpus_per_client = 64.*2 CPUs and 0 GPUs"):
        RayGrid("foreign_app:app", 4, cpus_per_client=64)
    with pytest.raises(ConfigurationError, match=r"gpus_per_client = 1"):
        RayGrid("foreign_app:app", 4, gpus_per_client=1)
    assert time.monotonic() - started < 5


def test_actors_that_do_not_start_are_an_error_not_a_hang(ray_session: None, apps: Path) -> None:
    with RayGrid("foreign_app:app", 2, actors=2) as first:
        ask(first)
        with (
            RayGrid("foreign_app:app", 2, actors=2, start_timeout=2) as second,
            pytest.raises(FedmetaError, match="start_timeout = 2"),
        ):
            ask(second)
