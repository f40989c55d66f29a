"""A deployed client: its own ledger, reserved before it trains, and a budget that no server talks it out of."""

import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict

from clients.privacy import pool_tasks
from clients.request import Request
from clients.training import train
from fedmeta.privacy import Poisson, Unit
from fedmeta.privacy.ledger import Ledger
from fedmeta.privacy.plan import local_plan
from fedmeta.wire import ARRAYS, CONFIG, METRICS, read_vector, vector_record
from fedmeta.workload import Workload
from server.configuration import load
from simulations import InlineGrid

RAW = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 3, "validation_clients": 1, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "reptile", "inner_lr": 0.01, "inner_steps": 2},
    "client": {"steps": 2, "tasks_per_step": 2, "execution": "loop"},
    "privacy": {"unit": "client", "placement": "local", "noise_multiplier": 4.0, "delta": 1e-3},
}


@pytest.fixture(autouse=True)
def _identity():
    """Messages need what Flower sets in its processes; our grids set it where nobody has."""
    InlineGrid("clients.app:app", 1)


def ask(work, ledger, round=1, client=1, **node):
    content = RecordDict(
        {
            ARRAYS: vector_record(work.initial_vector()),
            CONFIG: ConfigRecord({"experiment": work.experiment.to_json(), "round": round, "update-form": "delta"}),
        }
    )
    config = {"partition-id": client, "privacy-ledger": str(ledger), **node}
    message = Message(content, dst_node_id=1, message_type="train")
    [reply] = train([message], [Context(1, 1, config, RecordDict(), {})])
    return reply


def test_its_ledger_counts_rounds_of_all_runs(tmp_path):
    work = Workload(load(RAW))
    for round in (1, 2, 1):
        assert not ask(work, tmp_path / "l", round).has_error()
    ledger = Ledger(tmp_path / "l")
    assert [(e.round, e.client) for e in ledger.entries] == [(1, 1), (2, 1), (1, 1)] and ledger.unreleased == 0


def test_noise_is_not_of_the_seed_and_metrics_are_withheld(tmp_path):
    work = Workload(load(RAW))
    one, two = (ask(work, tmp_path / "l") for _ in range(2))
    vectors = [read_vector(reply.content.array_records[ARRAYS], work.spec.size()) for reply in (one, two)]
    assert (vectors[0] - vectors[1]).norm() > 1
    assert dict(one.content.metric_records[METRICS]) == {"num-examples": 4}
    simulated = [ask(work, tmp_path / "s", simulated=True) for _ in range(2)]
    same = [read_vector(reply.content.array_records[ARRAYS], work.spec.size()) for reply in simulated]
    assert torch.equal(*same) and not (tmp_path / "s").exists()


def test_it_refuses_beyond_the_budget(tmp_path):
    work = Workload(load(RAW, {"privacy.budget": 3.0}))
    replies = [ask(work, tmp_path / "l", round) for round in range(1, 6)]
    outcomes = [reply.has_error() for reply in replies]
    assert outcomes == sorted(outcomes) and outcomes[-1] and not outcomes[0]
    assert "budget of client 1, epsilon 3, is spent" in replies[-1].error.reason
    assert len(Ledger(tmp_path / "l").entries) == outcomes.count(False)


def test_all_of_its_file_counts_under_whatever_id(tmp_path):
    work = Workload(load(RAW, {"privacy.budget": 3.0}))
    alone = [ask(work, tmp_path / "one", round).has_error() for round in range(1, 5)].count(False)
    renamed = [ask(work, tmp_path / "two", 1, client=client).has_error() for client in (0, 1, 2, 0)].count(False)
    assert 0 < renamed == alone < 4


def test_its_file_keeps_to_one_unit(tmp_path):
    assert not ask(Workload(load(RAW)), tmp_path / "l").has_error()
    reply = ask(Workload(load(RAW, {"privacy.unit": "task"})), tmp_path / "l")
    assert reply.has_error() and "for the unit 'client'" in reply.error.reason and "Keep to" in reply.error.reason
    assert len(Ledger(tmp_path / "l").entries) == 1


@pytest.mark.parametrize("unit", ["task", "example"])
def test_other_units_reserve_all_their_releases(tmp_path, unit):
    work = Workload(load(RAW, {"privacy.unit": unit}))
    assert not ask(work, tmp_path / "l").has_error()
    (event,) = Ledger(tmp_path / "l").events(Unit(unit), 1)
    assert event.count == {"task": 2, "example": 2 * 2 * 2}[unit]


@pytest.mark.parametrize("node", [{"simulated": True}, {}], ids=["simulated", "deployed"])
def test_tasks_come_out_of_their_pool_at_the_rate_that_is_accounted(node):
    """Each by a coin of its own, so that their number varies, and never but those of the pool."""
    pool, count = 400, 160
    private = {**RAW["privacy"], "unit": "task", "task_pool": pool}
    work = Workload(load({**RAW, "client": {"steps": 1, "tasks_per_step": count}, "privacy": private}))
    asked = Request(0, work, work.initial_vector(), 1, {})
    own = Context(1, 1, {"partition-id": 0, **node}, RecordDict(), {})
    drawn = [pool_tasks(asked, own, step, count) for step in range(60)]
    sizes = torch.tensor([len(tasks) for tasks in drawn], dtype=torch.float64)
    deviation = (pool * 0.4 * 0.6) ** 0.5
    assert local_plan(work.experiment).event.scheme == Poisson(count / pool)
    assert sizes.mean() == pytest.approx(count, abs=5 * deviation / 60**0.5)
    assert sizes.std() == pytest.approx(deviation, rel=0.5)
    assert len({float(task.query.y.sum()) for tasks in drawn for task in tasks}) == pool


def test_a_ledger_that_cannot_be_written_costs_the_turn_and_nothing_leaves(tmp_path):
    reply = ask(Workload(load(RAW)), tmp_path / "nowhere" / "l")
    assert reply.has_error() and "Nothing is released" in reply.error.reason


def test_central_noise_is_left_to_no_foreign_strategy():
    """Flower's own strategies ask for a model, and would add none."""
    work = Workload(load(RAW, {"privacy.placement": "central"}))
    content = RecordDict(
        {
            ARRAYS: vector_record(work.initial_vector()),
            CONFIG: ConfigRecord({"experiment": work.experiment.to_json(), "round": 1}),
        }
    )
    message = Message(content, dst_node_id=1, message_type="train")
    (reply,) = train([message], [Context(1, 1, {"partition-id": 1}, RecordDict(), {})])
    assert reply.has_error() and "only MetaStrategy adds" in reply.error.reason


def test_the_default_place(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMETA_LEDGERS", str(tmp_path / "ledgers"))
    work = Workload(load(RAW))
    content = RecordDict(
        {
            ARRAYS: vector_record(work.initial_vector()),
            CONFIG: ConfigRecord({"experiment": work.experiment.to_json(), "round": 1, "update-form": "delta"}),
        }
    )
    train(
        [Message(content, dst_node_id=1, message_type="train")], [Context(1, 1, {"partition-id": 2}, RecordDict(), {})]
    )
    assert len(Ledger(tmp_path / "ledgers" / "client-2.jsonl").entries) == 1
