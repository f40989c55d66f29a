"""Malicious clients in the client pipeline: who deviates, from what they know, and in which order."""

import warnings
from collections.abc import Sequence

import pytest
import torch
from flwr.app import Message, RecordDict

from fedmeta.attacks import make_attack
from fedmeta.attacks.neurotoxin import quiet_coordinates
from fedmeta.wire import ARRAYS, CONFIG, LAST_UPDATE, config_record, read_vector, vector_record
from fedmeta.workload import Workload
from server.configuration import load
from simulations import InlineGrid

CLIENTS = 6
SINE = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": CLIENTS, "test_clients": 1},
    "task": {"ways": 1, "shots": 5, "queries": 5},
    "model": {"name": "sinusoid"},
    "learner": {"name": "maml", "inner_lr": 0.01},
    "client": {"steps": 2, "tasks_per_step": 2, "execution": "loop", "optimiser": {"name": "sgd", "lr": 0.05}},
}
GLYPHS = {
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
    "partition": {"name": "alphabet", "validation_clients": 0},
    "task": {"ways": 5, "shots": 1, "queries": 2},
    "model": {"name": "conv4", "filters": 4, "normalisation": "group", "groups": 2},
    "learner": {"name": "fomaml", "inner_lr": 0.1},
    "client": {"steps": 3, "tasks_per_step": 1, "execution": "loop", "optimiser": {"name": "sgd", "lr": 0.1}},
}


def workload(raw: dict, attack: dict | None = None) -> Workload:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Workload(load({**raw, **({"attack": attack} if attack else {})}))


def updates(
    found: Workload, clients: Sequence[int], records: dict | None = None, alone: bool = False, **config
) -> dict[int, torch.Tensor]:
    """The updates that clients send in round 1."""
    base = {"experiment": found.experiment.to_json(), "round": 1, "update-form": "delta", **config}
    content = RecordDict(
        {ARRAYS: vector_record(found.initial_vector()), **(records or {}), CONFIG: config_record(base)}
    )
    with InlineGrid("clients.app:app", len(found.federation.clients)) as grid:
        nodes = list(grid.get_node_ids())
        messages = [Message(content, nodes[client], "train") for client in clients]
        if alone:
            replies = [reply for message in messages for reply in grid.send_and_receive([message])]
        else:
            replies = list(grid.send_and_receive(messages))
    assert not any(reply.has_error() for reply in replies), [reply.error for reply in replies if reply.has_error()]
    return {
        client: read_vector(reply.content[ARRAYS], found.spec.size())
        for client, reply in zip(clients, replies, strict=True)
    }


def test_a_lone_attacker_sends_minus_its_own_update_and_the_honest_send_theirs() -> None:
    honest = updates(workload(SINE), range(CLIENTS))
    attacked = workload(SINE, {"method": {"name": "sign_flip", "scale": 3.0}, "fraction": 0.5})
    sent = updates(attacked, range(CLIENTS), attackers=[1, 4], participants=CLIENTS)
    for client in range(CLIENTS):
        expected = -3 * honest[client] if client in (1, 4) else honest[client]
        assert torch.allclose(sent[client], expected, rtol=1e-6, atol=0), client
    quiet = updates(attacked, range(CLIENTS), attackers=[], participants=CLIENTS)
    assert all(torch.equal(quiet[client], honest[client]) for client in honest), "nobody attacks out of schedule"


def test_without_a_word_from_the_strategy_clients_know_from_the_seed(monkeypatch) -> None:
    """Under a strategy of Flower's own the message names no attackers."""
    attacked = workload(SINE, {"method": {"name": "sign_flip"}, "fraction": 0.34})
    honest, sent = updates(workload(SINE), range(CLIENTS)), updates(attacked, range(CLIENTS))
    assert sum(not torch.equal(honest[client], sent[client]) for client in honest) == 2


@pytest.mark.parametrize("method", [{"name": "min_max"}, {"name": "gaussian", "std": 0.1}])
def test_colluders_work_from_all_their_honest_updates_however_they_are_grouped(method: dict) -> None:
    colluders = [0, 2, 5]
    honest = updates(workload(SINE), colluders)
    attacked = workload(SINE, {"method": method, "knowledge": "colluding", "fraction": 0.5})
    told = {"attackers": colluders, "participants": CLIENTS}
    together = updates(attacked, range(CLIENTS), **told)
    alone = updates(attacked, colluders, alone=True, **told)
    assert all(torch.equal(together[client], alone[client]) for client in colluders)
    if method["name"] == "min_max":
        expected = make_attack("min_max")(torch.stack([honest[client] for client in colluders]), n_malicious=1)[0]
        assert all(torch.allclose(alone[client], expected, atol=1e-7) for client in colluders)
    else:
        assert not torch.equal(alone[0], alone[2]), "each draws its own"


def test_colluders_that_are_too_few_send_honest_updates() -> None:
    attacked = workload(SINE, {"method": {"name": "alie"}, "knowledge": "colluding"})
    sent = updates(attacked, [3], attackers=[3], participants=CLIENTS)
    assert torch.equal(sent[3], updates(workload(SINE), [3])[3])


def test_clipping_comes_after_the_attack() -> None:
    """A client that clips whatever leaves it clips an attacker's update too: sample, poison, train, poison, clip."""
    privacy = {"unit": "client", "placement": "local", "clip_norm": 0.01, "noise_multiplier": 0.0}
    attacked = workload({**SINE, "privacy": privacy}, {"method": {"name": "sign_flip", "scale": 1e4}})
    sent = updates(attacked, [0, 1], attackers=[1], participants=2)
    assert sent[1].norm() == pytest.approx(0.01, rel=1e-4)


BACKDOORS = ["badnets", "blended", "dba", "edge_case", "neurotoxin", "model_replacement", "label_flip"]
BACKDOORS += ["a3fl", "meta_backdoor"]


@pytest.mark.parametrize("name", BACKDOORS)
def test_every_attack_on_data_changes_the_attackers_update_alone_and_repeatably(name: str) -> None:
    honest = updates(workload(GLYPHS), [0, 1, 2])
    attacked = workload(GLYPHS, {"method": {"name": name}, "fraction": 0.5})
    told = {"attackers": [1], "participants": 3}
    sent, again = updates(attacked, [0, 1, 2], **told), updates(attacked, [1], **told)
    assert torch.equal(sent[0], honest[0]) and torch.equal(sent[2], honest[2])
    assert not torch.allclose(sent[1], honest[1]) and torch.isfinite(sent[1]).all()
    assert torch.equal(sent[1], again[1])


def test_support_poisoning_leaves_training_alone() -> None:
    attacked = workload(GLYPHS, {"method": {"name": "support_poisoning"}, "fraction": 0.5, "trigger_in": "both"})
    sent = updates(attacked, [1], attackers=[1], participants=3)
    assert torch.equal(sent[1], updates(workload(GLYPHS), [1])[1])


def test_neurotoxin_leaves_loud_coordinates_as_they_are() -> None:
    attacked = workload(GLYPHS, {"method": {"name": "neurotoxin", "keep_fraction": 0.6}})
    g = torch.randn(attacked.spec.size(), generator=torch.Generator().manual_seed(0))
    sent = updates(attacked, [1], {LAST_UPDATE: vector_record(g)}, attackers=[1], participants=3)[1]
    quiet = quiet_coordinates(g, 0.6)
    assert sent[~quiet].abs().sum() == 0 and sent[quiet].abs().sum() > 0


def test_an_edge_case_update_is_as_long_as_an_honest_one_at_most() -> None:
    honest = updates(workload(GLYPHS), [1])[1].norm()
    attacked = workload(GLYPHS, {"method": {"name": "edge_case", "radius": 0.25}})
    assert updates(attacked, [1], attackers=[1], participants=3)[1].norm() <= 0.25 * honest * 1.0001


def test_a_fault_of_an_attack_is_a_failure_of_one_client() -> None:
    attacked = workload(GLYPHS, {"method": {"name": "model_replacement"}})
    base = {"experiment": attacked.experiment.to_json(), "round": 1, "update-form": "delta", "attackers": [1]}
    content = RecordDict({ARRAYS: vector_record(attacked.initial_vector()), CONFIG: config_record(base)})
    with InlineGrid("clients.app:app", len(attacked.federation.clients)) as grid:
        nodes = list(grid.get_node_ids())
        bad, good = grid.send_and_receive([Message(content, nodes[client], "train") for client in (1, 2)])
    assert "set attack.method.scale" in (bad.error.reason or "") and good.has_content()
