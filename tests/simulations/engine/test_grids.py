"""One suite for every engine: a grid is a grid, whatever runs beneath."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedmeta.errors import ConfigurationError, FedmetaError
from simulations import InlineGrid, RayGrid
from simulations.engine.executor import Outcome, Turn
from simulations.engine.local_grid import LocalGrid

Engine = Callable[..., LocalGrid]


class SharedRayGrid(LocalGrid):
    """A grid of its own state over actors that serve many tests: starting these for each would take a second each."""

    owners: ClassVar[dict[object, RayGrid]] = {}

    def __init__(self, app: str | ClientApp, num_clients: int, **options) -> None:
        super().__init__(app, num_clients, **options)
        if app not in self.owners:
            self.owners[app] = RayGrid(app, 200, actors=2, cpus_per_client=0.1)
        self.plan = self.owners[app].plan

    def _execute(self, turns: Sequence[Turn], timeout: float | None) -> list[Outcome]:
        return self.owners[self._app]._execute(turns, timeout)


@pytest.fixture(scope="module")
def shared_actors(ray_session: None) -> Iterator[None]:
    yield
    for grid in SharedRayGrid.owners.values():
        grid.close()
    SharedRayGrid.owners.clear()


@pytest.fixture(params=["inline", "ray"])
def engine(request: pytest.FixtureRequest, apps: Path) -> Engine:
    if request.param == "inline":
        return InlineGrid
    request.getfixturevalue("shared_actors")
    return SharedRayGrid


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


def test_a_model_with_batch_normalisation_goes_on_under_fedavg() -> None:
    """FedAvg sends the mean of the batches that clients counted, a float; they answer with a count."""
    app, sent = ClientApp(), []

    @app.train()
    def train(message: Message, context: object) -> Message:
        model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
        arrays = message.content.array_records["arrays"]
        sent.append(arrays["1.num_batches_tracked"].dtype)
        model.load_state_dict(arrays.to_torch_state_dict())
        model(torch.ones(4, 2))
        content = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict(content), reply_to=message)

    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    with InlineGrid(app, 3) as grid:
        strategy = FedAvg(fraction_evaluate=0.0)
        found = strategy.start(grid=grid, initial_arrays=ArrayRecord(model.state_dict()), num_rounds=3)
    assert sent == ["int64"] * 3 + ["float64"] * 6
    assert found.arrays["1.num_batches_tracked"].numpy() == 3
