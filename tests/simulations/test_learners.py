"""Every added learner in a real federated run: loop and vmap, inline and Ray, and one that learns."""

from pathlib import Path

import pytest
import torch

from fedmeta.workload import Workload
from server.configuration import load
from server.rounds import RunResult, run_experiment
from server.rundir import RunDir
from simulations import InlineGrid, simulate

GLYPHS = {
    "name": "learners",
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
    "partition": {"name": "alphabet", "validation_clients": 0},
    "task": {"ways": 3, "shots": 1, "queries": 2},
    "model": {"name": "mlp", "hidden": [10], "normalisation": "none"},
    "client": {"steps": 2, "tasks_per_step": 2, "execution": "loop", "optimiser": {"name": "sgd", "lr": 0.1}},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 3}},
    "evaluation": {"episodes": 2, "pooled_episodes": 4},
}
OWN = {
    **GLYPHS,
    "partition": {"name": "iid", "clients": 5, "test_clients": 1, "validation_clients": 0, "min_examples": 1},
    "task": {"kind": "own", "support_fraction": 0.5},
    "client": {**GLYPHS["client"], "tasks_per_step": 1},
}
LEARNERS = {
    "boil": {"inner_lr": 0.1},
    "imaml": {"inner_lr": 0.1, "inner_steps": 3, "cg_steps": 2},
    "perfedavg": {"inner_lr": 0.1},
    "matchingnet": {"full_context": True, "processing_steps": 2},
    "lstm_meta": {"inner_lr": 0.1, "inner_steps": 2},
    "abml": {"inner_lr": 0.1, "test_samples": 2},
}


def run(raw: dict, place: Path, **overrides) -> RunResult:
    """A run without its report, which takes longer to draw than these learn."""
    experiment = load(raw, {key.replace("__", "."): value for key, value in overrides.items()})
    grid = InlineGrid("clients.app:app", len(Workload(experiment).federation.clients))
    return run_experiment(grid, experiment, RunDir.create(place, experiment), simulated=True)


@pytest.mark.parametrize("learner", list(LEARNERS))
def test_a_run_in_a_loop_and_under_vmap(tmp_path: Path, learner: str) -> None:
    """Behind a robust rule, which needs nothing of a learner but its vector."""
    raw = {**GLYPHS, "learner": {"name": learner, **LEARNERS[learner]}}
    raw["server"] = {**GLYPHS["server"], "aggregator": {"name": "median"}}
    loop = run(raw, tmp_path / "loop")
    vmap = run(raw, tmp_path / "vmap", client__execution="vmap")
    assert not loop.failed_rounds and not loop.results["last"]["failed"]
    assert torch.allclose(loop.vector, vmap.vector, atol=1e-4)
    judged = loop.evaluation("pooled")
    assert judged is not None and judged.ece_after is not None and 0 <= judged.ece_after <= 1
    assert not torch.equal(loop.vector, Workload(load(raw)).initial_vector())


def test_personal_weights_on_ray_are_those_of_one_process(tmp_path: Path, ray_session) -> None:
    """They live in the driver's Contexts, whichever actor trains a client next; the third round uses them again."""
    raw = {**OWN, "learner": {"name": "pfedme", "inner_lr": 0.02}}
    raw["server"] = {"rounds": 3, "sampling": {"name": "fixed", "clients": 4}}
    inline = run(raw, tmp_path / "inline")
    ray = simulate(raw, engine="ray", out=tmp_path / "ray", overrides={"engine.actors": 2}, report=False)
    assert inline.model_hash == ray.model_hash and inline.results["last"] == ray.results["last"]


def test_matching_networks_learn_in_seconds(tmp_path: Path) -> None:
    raw = {**GLYPHS, "learner": {"name": "matchingnet"}, "model": {**GLYPHS["model"], "hidden": [64]}}
    raw["client"] = {**GLYPHS["client"], "execution": "auto", "optimiser": {"name": "adam", "lr": 2e-3}, "steps": 5}
    raw["evaluation"] = {**GLYPHS["evaluation"], "pooled_episodes": 100}
    first, last = (run(raw, tmp_path / str(rounds), server__rounds=rounds) for rounds in (0, 12))
    before, after = (found.evaluation("pooled").loss_after.mean for found in (first, last))
    assert after < before - 0.02
