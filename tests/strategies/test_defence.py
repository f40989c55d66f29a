"""Defences in a run: configured, told what they need, checkpointed, and written down by client id."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmeta.errors import ConfigurationError
from fedmeta.workload import Workload
from server.configuration import load
from server.rundir import RunDir
from simulations import simulate
from strategies.defence import make_probe
from strategies.root import RootTasks

SMALL: dict[str, Any] = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 8, "validation_clients": 0, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 3},
    "model": {"name": "sinusoid"},
    "learner": {"name": "maml", "inner_lr": 0.01},
    "client": {"steps": 1, "tasks_per_step": 1, "execution": "loop"},
    "server": {"rounds": 5, "sampling": {"name": "fixed", "clients": 6}},
    "evaluation": {"episodes": 2, "pooled_episodes": 2},
}


def configured(aggregator: dict[str, Any], *preaggregators: dict[str, Any], **server: Any) -> dict[str, Any]:
    return {
        **SMALL,
        "server": {**SMALL["server"], "aggregator": aggregator, "preaggregators": list(preaggregators), **server},
    }


HISTORIES = [
    configured({"name": "foolsgold"}),
    configured({"name": "fldetector", "window": 2}),
    configured({"name": "centered_clipping"}, {"name": "bucketing", "s": 2}),
    configured({"name": "signguard", "similarity": "cosine"}, {"name": "nnm", "f": 1}),
    configured({"name": "flame", "noise_factor": 0.01}, {"name": "arc", "f": 1}),
]


@pytest.mark.parametrize("raw", HISTORIES, ids=lambda raw: raw["server"]["aggregator"]["name"])
def test_a_resumed_run_equals_an_uninterrupted_one(raw: dict[str, Any], tmp_path: Path) -> None:
    whole = simulate(raw, engine="inline", out=tmp_path / "whole", report=False)

    def stop(record: dict[str, Any]) -> None:
        if record["round"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(raw, engine="inline", out=tmp_path / "stopped", observers=[stop], report=False)
    resumed = simulate(resume=tmp_path / "stopped", engine="inline", report=False)
    assert resumed.model_hash == whole.model_hash
    assert [record["defence"] for record in resumed.history] == [record["defence"] for record in whole.history]
    ours, theirs = (RunDir.open(tmp_path / name).load("last").optimiser for name in ("whole", "stopped"))
    assert set(ours) == set(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)
    if raw["server"]["aggregator"]["name"] != "flame":
        assert any(key.startswith("aggregator/") for key in ours), "the rule's history is part of the checkpoint"


def test_scores_and_flags_are_written_by_client(tmp_path: Path) -> None:
    result = simulate(configured({"name": "multi_krum", "f": 1}), engine="inline", out=tmp_path / "run", report=False)
    for record in result.history:
        defence, sampled = record["defence"], {str(client) for client in record["sampled"]}
        assert set(defence["scores"]) == set(defence["weights"]) == sampled
        (flagged,) = defence["flagged"]
        assert str(flagged) == max(defence["scores"], key=defence["scores"].__getitem__)
        assert defence["weights"][str(flagged)] == 0 and sum(defence["weights"].values()) == pytest.approx(1)


def test_a_draw_too_small_for_the_rule_keeps_the_model(tmp_path: Path) -> None:
    raw = configured({"name": "krum", "f": 2}, sampling={"name": "poisson", "rate": 0.4}, rounds=8)
    result = simulate(raw, engine="inline", out=tmp_path / "run", report=False)
    small = [record for record in result.history if 0 < len(record["sampled"]) < 7]
    assert small and all("n > 2 f + 2" in record["event"] and not record["failed_round"] for record in small)
    assert result.rounds == 8


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (configured({"name": "krum", "f": 2}), r"krum\.f = 2 with n = 6 .*n > 2 f \+ 2 .*f to at most 1"),
        (
            configured({"name": "krum", "f": 1}, {"name": "bucketing", "s": 2}),
            r"krum\.f = 1 with n = 3.*bucketing leaves 3",
        ),
        (configured({"name": "foolsgold"}, {"name": "bucketing", "s": 2}), "follows every client"),
        (configured({"name": "bulyan", "f": 1}), r"n >= 4 f \+ 3"),
        (configured({"name": "rlr", "threshold": 7}), "n >= threshold"),
        (configured({"name": "fltrust"}), r"'fltrust' needs the server's own update .*set server\.root = 'validation'"),
        (configured({"name": "deepsight", "head": ["head.weight"]}), "classes get their slots by chance"),
        (configured({"name": "krum"}), r"server\.aggregator\.f is missing"),
        (
            configured({"name": "krum", "f": 1}, {"name": "nmm", "f": 1}),
            "unknown preaggregator 'nmm'; did you mean 'nnm'",
        ),
        (
            configured({"name": "krum", "f": 1}, {"name": "nnm", "g": 1}),
            r"server\.preaggregators\[0\]\.g is not a parameter of preaggregator 'nnm'",
        ),
        (
            configured({"name": "krum", "f": 1}, {"name": "nnm", "f": -1}),
            r"server\.preaggregators\[0\]\.f = -1 must be >= 0",
        ),
        (configured({"name": "krum", "f": 1, "variant": "x"}), "one of 'blanchard', 'byzfl'"),
    ],
)
def test_what_cannot_work_is_refused_before_any_client_works(raw: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load(raw)


def test_weights_that_a_rule_does_not_take_are_a_warning() -> None:
    raw = configured({"name": "median"}, weighting="tasks")
    with pytest.warns(UserWarning, match="'median' takes no weights that clients report"):
        load(raw)


def test_preaggregators_with_central_noise_are_refused() -> None:
    raw = configured({"name": "mean"}, {"name": "nnm", "f": 1})
    raw["privacy"] = {"unit": "client", "noise_multiplier": 1.0}
    with pytest.raises(ConfigurationError, match=r"server\.preaggregators are not available with central noise"):
        load(raw)


ROOTED = {
    **configured({"name": "fltrust"}, root="validation"),
    "partition": {"name": "iid", "clients": 8, "validation_clients": 2, "test_clients": 1},
}


def test_fltrust_trains_on_root_tasks(tmp_path: Path) -> None:
    result = simulate(ROOTED, engine="inline", out=tmp_path / "run", report=False)
    root = RootTasks(load(ROOTED))
    start = root.workload.initial_vector()
    update = root.update(start, 1)
    assert torch.equal(update, root.update(start, 1)), "drawn from the seed and the round"
    assert not torch.equal(update, root.update(start, 2))
    first = result.history[0]
    assert first["train"]["update-norm"] <= float(update.norm()) * (1 + 1e-5), "trusted rows have the root's length"
    assert set(first["defence"]["scores"]) == {str(client) for client in first["sampled"]}


def test_root_classes_are_neither_training_nor_test_classes() -> None:
    data = {"name": "hershey", "writers": 2, "examples_per_writer": 2}
    task = {"ways": 3, "shots": 1, "queries": 1}
    server = {"aggregator": {"name": "fltrust"}, "root": "validation", "sampling": {"name": "fixed", "clients": 2}}
    root = RootTasks(load({"data": data, "task": task, "server": server}))
    roots = {int(c) for round in range(20) for episode in root._draw(round, 0, 4) for c in episode.classes}
    shape, rng = root.workload.training_shape, np.random.default_rng(0)
    for client in root.workload.federation.clients:
        if client.role in ("train", "test"):
            source = root.workload.source(client.id)
            seen = {int(c) for _ in range(10) for c in source.sample(shape, rng).classes}
            assert not roots & seen, client
    assert len(roots) > 10


def test_a_root_without_validation_clients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"server\.root = 'validation' but .*partition\.validation_clients"):
        simulate(
            configured({"name": "fltrust"}, root="validation"), engine="inline", out=tmp_path / "run", report=False
        )
    with pytest.warns(UserWarning, match=r"server\.root has no effect"):
        load(configured({"name": "median"}, root="validation"))


def test_counting_signs_of_noise_is_a_warning() -> None:
    raw = configured({"name": "rlr", "threshold": 4})
    raw["privacy"] = {"unit": "client", "placement": "local", "noise_multiplier": 1.0}
    with pytest.warns(UserWarning, match="'rlr' counts signs"):
        load(raw)


def test_the_resolved_configuration_gives_the_same_experiment() -> None:
    import tomllib

    from simulations.describe import describe

    experiment = load(configured({"name": "krum", "f": 0}, {"name": "bucketing", "s": 2}, {"name": "nnm", "f": 1}))
    assert load(tomllib.loads(describe(experiment))) == experiment
    assert load(experiment, {"server.preaggregators": []}).server.preaggregators == ()


def test_deepsight_asks_the_models_of_the_experiment() -> None:
    """With slots that mean classes: each client's own data, shared classes, and a learner with a head."""
    experiment = load(
        {
            "data": {"name": "hershey", "writers": 2, "examples_per_writer": 4},
            "partition": {"name": "writer"},
            "task": {"kind": "own", "support_fraction": 0.5},
            "model": {"name": "mlp"},
            "learner": {"name": "fomaml", "inner_lr": 0.1},
            "server": {
                "sampling": {"name": "fixed", "clients": 2},
                "aggregator": {"name": "deepsight", "head": ["head.weight", "head.bias"]},
            },
        }
    )
    probe = make_probe(experiment)
    from fedmeta.workload import Workload

    vector = Workload(experiment).initial_vector()
    found = probe.probabilities(vector, torch.rand(3, *probe.input_shape))
    assert probe.fixed_slots and found.shape[0] == 3 and torch.allclose(found.sum(1), torch.ones(3))


@pytest.mark.parametrize("learner", ["metasgd", "ditto"])
def test_a_probe_asks_the_network_alone(learner: str) -> None:
    """Step sizes and personal weights are entries of the vector that no network has."""
    model = {"name": "mlp", "hidden": [4], "normalisation": "none"}
    experiment = load({"model": model, "learner": {"name": learner}, "task": {"ways": 3}})
    found = make_probe(experiment).probabilities(Workload(experiment).initial_vector(), torch.zeros(2, 1, 28, 28))
    assert found.shape == (2, 3) and torch.allclose(found.sum(dim=1), torch.ones(2))
