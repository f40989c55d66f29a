"""Personal weights on Ray, and an added learner that learns; all learners are in test_learner_walk.py."""

from pathlib import Path

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


def run(raw: dict, place: Path, **overrides) -> RunResult:
    """A run without its report, which takes longer to draw than these learn."""
    experiment = load(raw, {key.replace("__", "."): value for key, value in overrides.items()})
    grid = InlineGrid("clients.app:app", len(Workload(experiment).federation.clients))
    return run_experiment(grid, experiment, RunDir.create(place, experiment), simulated=True)


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
