"""The utility sweep: every epsilon and seed once, continued where it was interrupted, with a plot."""

import json

import pytest

from fedmeta.errors import ConfigurationError
from simulations.privacy_sweep import sweep

RAW = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 6, "validation_clients": 0, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "maml", "inner_lr": 0.01},
    "client": {"steps": 1, "tasks_per_step": 1, "execution": "loop"},
    "server": {"rounds": 2, "sampling": {"name": "poisson", "rate": 0.5}, "optimiser": {"name": "sgd", "lr": 0.01}},
    "evaluation": {"episodes": 2, "pooled_episodes": 2},
    "privacy": {"unit": "client", "noise_multiplier": 1.0, "delta": 1e-2},
}


def test_points_files_and_going_on(tmp_path):
    points = sweep(RAW, [20.0, 2.0], [0, 1], tmp_path, engine="inline")
    assert [point.epsilon for point in points] == [2.0, 20.0, None]
    assert points[0].noise_multiplier > points[1].noise_multiplier and points[2].noise_multiplier is None
    for point in points[:2]:
        assert (
            0.98 * point.epsilon <= point.spent <= point.epsilon
            and len(point.scores) == 2
            and min(point.scores) <= point.mean <= max(point.scores)
        )
    assert json.loads((tmp_path / "sweep.json").read_text())[0]["epsilon"] == 2.0
    assert "<svg" in (tmp_path / "sweep.svg").read_text()
    written = (tmp_path / "epsilon-2" / "seed-0" / "metrics.jsonl").stat().st_mtime_ns
    again = sweep(RAW, [2.0, 20.0], [0, 1], tmp_path, engine="inline")
    assert again == points and (tmp_path / "epsilon-2" / "seed-0" / "metrics.jsonl").stat().st_mtime_ns == written


def test_what_cannot_be_swept(tmp_path):
    with pytest.raises(ConfigurationError, match="at least one"):
        sweep(RAW, [], [0], tmp_path, engine="inline")
    with pytest.raises(ConfigurationError, match=r"privacy\.unit"):
        sweep({**RAW, "privacy": {"unit": "none"}}, [1.0], [0], tmp_path, engine="inline")
    sweep(RAW, [5.0], [0], tmp_path, engine="inline")
    with pytest.raises(ValueError, match="another experiment"):
        sweep(RAW, [5.0], [0], tmp_path, engine="inline", overrides={"learner.inner_lr": 0.02})
