"""Our ClientApp through an inline grid: what it refuses, what it never sends, and Flower's own strategy on it."""

import gc

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

from clients.request import read_request
from clients.training import train as train_clients
from fedmeta.params import ParamSpec
from fedmeta.training import CohortResult
from fedmeta.wire import ARRAYS, CONFIG, config_record, read_vector, vector_record
from fedmeta.workload import Workload
from server.configuration import load
from simulations import InlineGrid

RAW = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 3, "test_clients": 1},
    "task": {"ways": 1, "shots": 5, "queries": 5},
    "model": {"name": "sinusoid"},
    "learner": {"name": "maml", "inner_lr": 0.01},
    "client": {"steps": 3, "tasks_per_step": 2, "execution": "loop", "optimiser": {"name": "sgd", "lr": 0.01}},
}


def request(workload: Workload, **config) -> RecordDict:
    base = {"experiment": workload.experiment.to_json(), "round": 1, "update-form": "delta", **config}
    return RecordDict({ARRAYS: vector_record(workload.initial_vector()), CONFIG: config_record(base)})


def train(workload: Workload, content: RecordDict, grid: InlineGrid, clients: int = 3) -> list[Message]:
    return grid.send_and_receive([Message(content, node, "train") for node in list(grid.get_node_ids())[:clients]])


@pytest.fixture
def workload() -> Workload:
    return Workload(load(RAW))


@pytest.fixture
def grid() -> InlineGrid:
    return InlineGrid("clients.app:app", 5)


def test_delta_and_model_differ_by_the_model(workload: Workload, grid: InlineGrid) -> None:
    size, start = workload.spec.size(), workload.initial_vector()
    deltas = [read_vector(r.content[ARRAYS], size) for r in train(workload, request(workload), grid)]
    models = [
        read_vector(r.content[ARRAYS], size)
        for r in train(workload, request(workload, **{"update-form": "model"}), grid)
    ]
    for delta, model in zip(deltas, models, strict=True):
        assert torch.allclose(start + delta, model) and delta.norm() < 0.5 * start.norm()
    assert not torch.equal(deltas[0], deltas[1]), "clients have tasks of their own"


def test_messages_with_one_model_share_it_and_others_do_not(workload: Workload, grid: InlineGrid) -> None:
    context = Context(1, 1000, {"partition-id": 0, "num-partitions": 5, "simulated": True}, RecordDict(), {})
    content, known = request(workload), {}
    first, same = (read_request(Message(content, 1000, "train"), context, known).vector for _ in range(2))
    other = read_request(Message(request(workload), 1000, "train"), context, known).vector
    assert first is same and other is not first and torch.equal(first, other)
    before, _ = first.clone(), train(workload, content, grid)
    assert torch.equal(first, before) and torch.equal(read_vector(content[ARRAYS], len(before)), before)


def test_a_cohort_gives_what_its_members_give_alone(workload: Workload, grid: InlineGrid) -> None:
    together = train(workload, request(workload), grid)
    for index, node in enumerate(list(grid.get_node_ids())[:3]):
        [alone] = grid.send_and_receive([Message(request(workload), node, "train")])
        assert alone.content[ARRAYS]["flat"].data == together[index].content[ARRAYS]["flat"].data


def test_flowers_fedavg_trains_our_clients(workload: Workload, grid: InlineGrid) -> None:
    """A strategy that does not ask for deltas gets models, which is what Flower's own take replies for."""
    result = FedAvg(fraction_train=0.6, fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=5).start(
        grid=grid,
        initial_arrays=vector_record(workload.initial_vector()),
        num_rounds=3,
        train_config=ConfigRecord({"experiment": workload.experiment.to_json()}),
    )
    moved = read_vector(result.arrays, workload.spec.size())
    start = workload.initial_vector()
    assert 0.5 < moved.norm() / start.norm() < 2 and not torch.equal(moved, start)


def test_under_flowers_strategies_rounds_draw_tasks_of_their_own(workload: Workload, grid: InlineGrid) -> None:
    """Flower calls the round `server-round`; without it every round would train on the same tasks."""
    base = {"experiment": workload.experiment.to_json()}
    replies = []
    for round in (1, 2):
        content = RecordDict(
            {ARRAYS: vector_record(workload.initial_vector()), CONFIG: config_record({**base, "server-round": round})}
        )
        replies.append(train(workload, content, grid)[0].content[ARRAYS]["flat"].data)
    assert replies[0] != replies[1]


def test_flowers_fedavg_evaluates_our_clients(workload: Workload, grid: InlineGrid) -> None:
    config = ConfigRecord({"experiment": workload.experiment.to_json()})
    result = FedAvg(fraction_train=0.6, min_train_nodes=3, min_evaluate_nodes=5, min_available_nodes=5).start(
        grid=grid,
        initial_arrays=vector_record(workload.initial_vector()),
        num_rounds=1,
        train_config=config,
        evaluate_config=config,
    )
    assert sorted(result.evaluate_metrics_clientapp[1]) == ["loss", "mse"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"update-form": "gradient"}, "neither 'delta' nor 'model'"),
        ({"spec-hash": "0" * 64}, "the server's model has spec 000000000000"),
    ],
)
def test_a_message_that_cannot_be_served_is_a_named_failure(
    workload: Workload, grid: InlineGrid, change: dict, words: str
) -> None:
    for reply in train(workload, request(workload, **change), grid):
        assert words in (reply.error.reason or "")


def test_a_model_that_is_no_flat_vector_is_refused(workload: Workload, grid: InlineGrid) -> None:
    content = request(workload)
    content[ARRAYS] = vector_record(torch.zeros(3))
    assert "float32 (3,) where float32" in (train(workload, content, grid)[0].error.reason or "")
    content[ARRAYS] = vector_record(torch.full((workload.spec.size(),), float("nan")))
    assert "NaN or infinite" in (train(workload, content, grid)[0].error.reason or "")


def test_personal_entries_are_kept_on_the_client_and_frozen_ones_never_move(grid: InlineGrid) -> None:
    workload = Workload(load({**RAW, "sharing": {"personal": ["head.*"], "frozen": ["body.1.*"]}}))
    spec: ParamSpec = workload.spec
    roles = {entry.name: entry.role for entry in spec.entries}
    assert roles["head.weight"] == "personal" and roles["body.1.weight"] == "frozen"
    first = train(workload, request(workload), grid)
    assert all(reply.content[ARRAYS]["flat"].shape == (spec.size(),) for reply in first)
    states = [grid._states[partition] for partition in range(3)]
    own = [read_vector(state["personal"], spec.size("personal")) for state in states]
    assert not torch.equal(own[0], own[1]) and not torch.equal(own[0], spec.flatten(workload.initial, "personal"))
    again = train(workload, request(workload), grid)
    assert not np.array_equal(again[0].content[ARRAYS]["flat"].numpy(), first[0].content[ARRAYS]["flat"].numpy()), (
        "the second turn starts from the client's own head"
    )


def test_no_reply_carries_data_or_personal_parameters(workload: Workload, grid: InlineGrid) -> None:
    [reply, *_] = train(workload, request(workload), grid)
    assert sorted(reply.content) == ["arrays", "config", "metrics"]
    assert sorted(reply.content["metrics"]) == ["loss", "mse", "num-examples"]
    assert reply.content["metrics"]["num-examples"] == 6


def test_a_refused_client_leaves_nothing_of_the_others_behind(workload: Workload) -> None:
    """Its error must not hold the frame in which all of them were trained."""
    contents = [request(workload), request(workload, **{"update-form": "x"})]
    messages = [Message(content, 1000 + client, "train") for client, content in enumerate(contents)]
    nodes = [{"partition-id": client, "num-partitions": 5, "simulated": True} for client in range(2)]
    contexts = [Context(1, 1000 + client, node, RecordDict(), {}) for client, node in enumerate(nodes)]
    gc.collect()
    gc.disable()
    try:
        good, bad = train_clients(messages, contexts)
        before = sum(isinstance(each, CohortResult) for each in gc.get_objects())
    finally:
        gc.enable()
    assert good.has_content() and bad.has_error() and before == 0
