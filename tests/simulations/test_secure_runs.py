"""Secure aggregation in whole runs: on both engines, and with the learner it is shipped for."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from fedmeta.errors import ConfigurationError
from fedmeta.workload import Workload
from server.configuration import load
from server.report import write_report
from server.rounds import Observer, RunResult, run_experiment
from server.rundir import RunDir
from server.secure_aggregation import in_words, secured
from simulations import InlineGrid, RayGrid

GLYPHS = {
    "name": "glyphs",
    "data": {"name": "hershey", "writers": 2},
    "partition": {"name": "alphabet", "validation_clients": 0, "pooled": False},
    "task": {"ways": 3, "shots": 1, "queries": 3},
    "model": {"name": "conv4", "filters": 8, "normalisation": "group"},
    "learner": {"name": "protonet"},
    "client": {"steps": 2, "tasks_per_step": 2, "execution": "loop", "optimiser": {"name": "sgd", "lr": 0.1}},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 8}},
    "evaluation": {"every": 20, "episodes": 30},
}
SINUSOID = {
    "name": "sinusoid",
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 8, "validation_clients": 0, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "reptile", "inner_lr": 0.01, "inner_steps": 2, "test_steps": 1},
    "client": {"execution": "loop"},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 8}},
    "evaluation": {"every": 20, "episodes": 1, "pooled_episodes": 1},
}


def play(folder: Path, raw: dict, engine: type = InlineGrid, observers: Sequence[Observer] = ()) -> RunResult:
    """A whole run, or the rest of one, but for the report, which takes seconds to draw."""
    experiment = load(raw)
    with engine("clients.app:app", len(Workload(experiment).federation.clients), check=False) as grid:
        rundir = RunDir.open(folder) if folder.exists() else RunDir.create(folder, experiment)
        try:
            secure = secured(grid, experiment, simulated=True)
            return run_experiment(secure, experiment, rundir, observers, simulated=True)
        finally:
            rundir.close()


def test_federated_protonet_is_the_same_with_and_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="fedmeta.server")
    plain = play(tmp_path / "plain", GLYPHS)
    assert "secure aggregation" not in caplog.text
    secure = play(tmp_path / "secure", {**GLYPHS, "secagg": {"enabled": True, "group_size": 4}})
    said = next(line for line in caplog.messages if line.startswith("secure aggregation: "))
    assert "groups of 4" in said, "the odds stand at the head of the run"
    moved = plain.vector - Workload(load(GLYPHS)).initial_vector()
    assert (secure.vector - plain.vector).norm() < 1e-5 * moved.norm()
    scores = [run.evaluation().after.mean for run in (plain, secure)]
    assert abs(scores[0] - scores[1]) < 1e-3 and scores[0] > 0.4, "three ways"
    assert "4 sums of 4 clients and no single update" in in_words(secure.results["secagg"])
    page = write_report(RunDir.open(tmp_path / "secure", exclusive=False), None).read_text()
    assert "4 sums of 4 clients" in page and "any single client" in page


def test_ray_gives_what_inline_gives_dropouts_and_noise_included(tmp_path: Path, ray_session: None) -> None:
    raw = {
        **SINUSOID,
        "secagg": {
            "enabled": True, "dropouts": 0.3, "corrupt": 0.0, "adversary": "semi-honest",
            "dropout": {"keys": 0.1, "shares": 0.1, "masked": 0.1, "unmask": 0.1},
        },
        "privacy": {"unit": "client", "placement": "distributed", "noise_multiplier": 0.5, "delta": 1e-2},
    }  # fmt: skip
    inline, ray = play(tmp_path / "inline", raw), play(tmp_path / "ray", raw, RayGrid)
    assert inline.model_hash == ray.model_hash
    assert [record["failed"] for record in inline.history] == [record["failed"] for record in ray.history]
    assert any(record["failed"] for record in ray.history) and any(record["groups"] for record in ray.history)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    """Groups and dropouts follow from the seed and the round, and an adaptive clip norm from the checkpoint."""
    raw = {
        **SINUSOID,
        "server": {"rounds": 3, "sampling": {"name": "fixed", "clients": 8}},
        "secagg": {"enabled": True, "group_size": 4, "dropout": {"masked": 0.1}},
        "privacy": {
            "unit": "client", "placement": "distributed", "noise_multiplier": 0.5, "delta": 1e-2,
            "clipping": "adaptive", "colluders": 0, "min_survivors": 3,
        },
    }  # fmt: skip
    whole = play(tmp_path / "whole", raw)

    def stop(record: dict) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(tmp_path / "parts", raw, observers=[stop])
    resumed = play(tmp_path / "parts", raw)
    assert resumed.model_hash == whole.model_hash and resumed.rounds == 3
    assert [record["groups"] for record in resumed.history] == [record["groups"] for record in whole.history]


def test_simulated_dropouts_are_refused_in_a_deployment() -> None:
    experiment = load({**GLYPHS, "secagg": {"enabled": True, "dropout": {"keys": 0.1}}})
    with pytest.raises(ConfigurationError, match=r"secagg\.dropout is for simulations"):
        secured(InlineGrid("clients.app:app", 1), experiment, simulated=False)


@pytest.mark.parametrize("learner", ["abml", "pfedme"])
def test_two_vectors_in_one_and_weights_that_stay_at_home(tmp_path: Path, learner: str) -> None:
    """What travels is a flat vector whatever the learner: means beside deviations, and no personal weight."""
    raw = {**SINUSOID, "learner": {"name": learner, "inner_lr": 0.005}}
    plain = play(tmp_path / "plain", raw)
    secure = play(tmp_path / "secure", {**raw, "secagg": {"enabled": True, "group_size": 4}})
    assert not secure.failed_rounds and not secure.history[-1]["failed"]
    assert (plain.vector - secure.vector).abs().max() < 1e-3 and (plain.vector - secure.vector).abs().max() > 0
