"""Distributed noise in whole rounds: what the server sees has the noise that is accounted, and no less."""

import math
import warnings

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict

from fedmeta.privacy import secagg_names as names
from fedmeta.privacy.clipping import clip_rows
from fedmeta.privacy.distributed.draws import words_of
from fedmeta.privacy.distributed.round_encoder import round_encoder
from fedmeta.privacy.plan import local_plan
from fedmeta.privacy.secagg_section import DropoutSection
from fedmeta.wire import ARRAYS, CONFIG, GROUP, METRICS, WEIGHT, config_record, read_vector, vector_record
from fedmeta.workload import Workload
from server.configuration import load
from server.rounds import run_experiment
from server.rundir import RunDir
from server.secure_aggregation import secured
from simulations import InlineGrid
from strategies.decorator import GridDecorator
from strategies.secagg_encoding import NoisedSums
from strategies.secure_aggregation import SecureAggregationGrid

RAW = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 12, "validation_clients": 0, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "reptile", "inner_lr": 0.01, "inner_steps": 2, "test_steps": 1},
    "client": {"steps": 1, "tasks_per_step": 1, "execution": "loop", "optimiser": {"name": "sgd", "lr": 1.0}},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 12}},
    "evaluation": {"every": 20, "episodes": 1, "pooled_episodes": 1},
    "secagg": {"enabled": True, "corrupt": 0.1, "dropouts": 0.2, "adversary": "semi-honest"},
}
PRIVACY = {"unit": "client", "placement": "distributed", "noise_multiplier": 2.0, "clip_norm": 0.01, "delta": 1e-3}


def experiment(dropout: dict | None = None, **privacy):
    secagg = {**RAW["secagg"], **({"dropout": dropout} if dropout else {})}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that z = 0 protects nobody
        return load({**RAW, "secagg": secagg, "privacy": {**PRIVACY, **privacy}})


def messages(workload: Workload, grid, round: int = 1) -> list[Message]:
    told = {"experiment": workload.experiment.to_json(), "round": round, "update-form": "delta"}
    content = RecordDict({ARRAYS: vector_record(workload.initial_vector()), CONFIG: config_record(told)})
    return [Message(content, node, "train") for node in list(grid.get_node_ids())[:12]]


def play(found, grid=None, **options) -> tuple[list[Message], SecureAggregationGrid]:
    inner = InlineGrid("clients.app:app", 13) if grid is None else grid
    encoding = NoisedSums(found)
    secure = SecureAggregationGrid(inner, found.secagg, seed=0, min_success_fraction=0.0, encoding=encoding, **options)
    return list(secure.send_and_receive(messages(Workload(found), inner))), secure


def mean_of(replies: list[Message]) -> np.ndarray:
    [reply] = [reply for reply in replies if not reply.has_error()]
    size = int(reply.content[ARRAYS]["flat"].shape[0])
    return read_vector(reply.content[ARRAYS], size).numpy()


def clipped_mean(found) -> np.ndarray:
    """As the clients' own updates, in the clear, have it."""
    workload = Workload(load({**RAW, "secagg": {}}))
    grid = InlineGrid("clients.app:app", 13)
    replies = grid.send_and_receive(messages(workload, grid))
    rows = [read_vector(reply.content[ARRAYS], workload.spec.size()) for reply in replies]
    clipped, _ = clip_rows(torch.stack(rows), found.privacy.clip_norm, [])
    return clipped.mean(0).numpy()


def test_without_noise_it_is_the_mean_of_clipped_updates() -> None:
    found = experiment(noise_multiplier=0.0)
    replies, _ = play(found)
    expected = clipped_mean(found)
    assert np.linalg.norm(mean_of(replies) - expected) < 1e-4 * np.linalg.norm(expected)
    [reply] = replies
    assert set(reply.content[METRICS]) == {WEIGHT} and reply.content[METRICS][WEIGHT] == 12
    assert set(reply.content[CONFIG]) == {GROUP, "spec-hash", "update-form"}, "nothing that no noise protects"


@pytest.mark.parametrize("mechanism", ["skellam", "discrete_gaussian"])
def test_the_noise_of_a_sum_is_the_accounted_one_or_more(mechanism: str) -> None:
    """12 survivors of whom 9 are counted on, 2 of them colluders: 12 shares of z C / sqrt(7)."""
    found = experiment(mechanism=mechanism)
    error = (mean_of(play(found)[0]) - clipped_mean(found)) * 12
    share = found.privacy.clip_norm * 2.0 / math.sqrt(9 - 2)
    assert error.std() == pytest.approx(share * math.sqrt(12), rel=6 / math.sqrt(2 * len(error)))
    assert error.std() > found.privacy.clip_norm * local_plan(found).noise_multiplier


def test_a_sum_with_too_little_noise_is_never_unmasked() -> None:
    found = experiment(dropout={"masked": 0.4})
    seen: list[str] = []

    class Noting(GridDecorator):
        def send_and_receive(self, messages, *, timeout=None):
            sent = list(messages)
            seen.extend(message.metadata.message_type for message in sent)
            return self._grid.send_and_receive(sent, timeout=timeout)

    replies, _ = play(found, Noting(InlineGrid("clients.app:app", 13)))
    assert all(reply.has_error() for reply in replies) and len(replies) == 12
    assert any("privacy.min_survivors = 9" in reply.error.reason for reply in replies)
    assert names.UNMASK not in seen


def test_a_client_does_not_help_to_unmask_a_sum_with_too_little_noise() -> None:
    """A server that does not look at the number of survivors is refused by every client."""

    class Careless(NoisedSums):
        def __init__(self, found) -> None:
            super().__init__(found)
            self.least = 1

    found = experiment()
    settings = found.secagg.model_copy(update={"dropout": DropoutSection(masked=0.4), "dropouts": 0.4})
    inner = InlineGrid("clients.app:app", 13)
    grid = SecureAggregationGrid(inner, settings, seed=0, min_success_fraction=0.0, encoding=Careless(found))
    replies = grid.send_and_receive(messages(Workload(found), inner))
    reasons = [reply.error.reason for reply in replies]
    assert len(reasons) == 12 and any("would hold less noise than was accounted for 9" in reason for reason in reasons)


def test_an_adaptive_norm_moves_by_what_clients_count_and_is_remembered() -> None:
    """All norms are far above C = 1e-4: C must grow, and the next round must use the new one."""
    found = experiment(clipping="adaptive", clip_norm=1e-4, noise_multiplier=0.5)
    inner = InlineGrid("clients.app:app", 13)
    grid = SecureAggregationGrid(inner, found.secagg, seed=0, encoding=NoisedSums(found))
    norms = []
    for round in (1, 2, 3):
        assert not any(r.has_error() for r in grid.send_and_receive(messages(Workload(found), inner, round)))
        norms.append(float(grid.state()["clip-norm"]))
    assert 1e-4 < norms[0] < norms[1] < norms[2] < 1.5e-4
    other = SecureAggregationGrid(inner, found.secagg, seed=0, encoding=NoisedSums(found))
    other.load_state(grid.state())
    assert other.state() == grid.state()


def test_the_norm_moves_by_the_counts_of_all_groups_together() -> None:
    """Without noise: one group of which all are within C, one of which two of three are."""
    found = experiment(clipping="adaptive", clip_norm=1.0, noise_multiplier=0.0)
    sums, size = NoisedSums(found), Workload(found).spec.size()
    for norms in ([0.1, 0.2, 0.3], [0.1, 0.2, 9.0]):
        client, server = round_encoder(found, 1, 1.0, words_of(np.random.default_rng(0))), sums.encoder(1, 3)
        vectors = [np.full(size, norm / math.sqrt(size)) for norm in norms]
        total = sum(client.encode(vector, np.random.default_rng(0)) for vector in vectors)
        # Three fillers of each kind make up the survivors that are asked for, and cancel in the count.
        fillers = [client.encode(np.full(size, value), np.random.default_rng(0)) for value in [0.0] * 3 + [1e3] * 3]
        sums.decode(server, total + sum(fillers), 9)
    away = (6 + 5) / 18 - found.privacy.quantile
    assert sums.next_norm == pytest.approx(math.exp(-found.privacy.clip_rate * away), rel=1e-4)


def test_a_whole_run_is_accounted_and_says_what_the_server_learnt(tmp_path) -> None:
    found = experiment()
    with InlineGrid("clients.app:app", len(Workload(found).federation.clients), check=False) as grid:
        rundir = RunDir.create(tmp_path / "run", found)
        result = run_experiment(secured(grid, found, simulated=True), found, rundir, simulated=True)
        rundir.close()
    said = result.results["privacy"]
    assert said["placement"] == "distributed" and said["epsilon"] > 0 and said["rounds"] == 2
    assert result.results["secagg"]["sums"] == 2 and result.results["secagg"]["clipped"] is None
    assert not result.failed_rounds
