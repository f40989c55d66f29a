"""Rounds that are small, empty or last are ordinary."""

from pathlib import Path

import pytest
import torch

from fedmeta.errors import FedmetaError
from simulations import simulate

TINY = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 3, "validation_clients": 1, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "fomaml", "inner_lr": 0.01},
    "client": {"steps": 1, "tasks_per_step": 1},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 2}},
    "evaluation": {"episodes": 2, "validation_episodes": 2, "pooled_episodes": 2},
}


def run(tmp_path: Path, **overrides):
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    return simulate(TINY, engine="inline", out=tmp_path / "run", overrides=keys, report=False)


def test_the_last_round_is_judged_and_best_is_chosen_on_validation(tmp_path: Path) -> None:
    result = run(tmp_path, server__rounds=7, evaluation__every=3)
    judged = [record["round"] for record in result.history if record["validation"]]
    assert judged == [3, 6, 7]
    best, last = result.results["best"], result.results["last"]
    assert last["round"] == 7 and best["round"] in judged and best["split"] == "validation"
    scores = {
        record["round"]: record["validation"]["score"][-1]["mean"] for record in result.history if record["validation"]
    }
    assert best["score"] == min(scores.values()) == scores[best["round"]], "mean squared error: lower is better"
    if best["round"] == 7:
        assert best["test"] == last["test"]


def test_zero_rounds_judge_the_initial_model(tmp_path: Path) -> None:
    result = run(tmp_path, server__rounds=0)
    assert result.rounds == 0 and result.history == ()
    assert result.evaluation("test") is not None and result.results["best"] is None


def test_empty_poisson_rounds_keep_the_model_and_say_so(tmp_path: Path) -> None:
    result = run(tmp_path, server__rounds=30, server__sampling__name="poisson", server__sampling__rate=0.1)
    empty = [record for record in result.history if not record["sampled"]]
    assert empty and all(record["event"] == "no client was sampled" for record in empty)
    assert len(empty) < 30 and not result.failed_rounds


def test_one_client_one_step_one_query(tmp_path: Path) -> None:
    result = run(tmp_path, server__sampling__clients=1, task__shots=1, task__queries=1, evaluation__episodes=1)
    assert result.rounds == 2 and not result.failed_rounds


def test_zero_server_step_moves_nothing(tmp_path: Path) -> None:
    still = run(tmp_path, server__optimiser__lr=0.0)
    start = simulate(TINY, engine="inline", out=tmp_path / "start", overrides={"server.rounds": 0}, report=False)
    assert torch.equal(still.vector, start.vector)


def test_more_clients_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FedmetaError, match=r"server\.sampling\.clients = 9 but there are 3"):
        run(tmp_path, server__sampling__clients=9)
