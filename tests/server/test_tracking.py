"""Metrics beside the run directory."""

import importlib.util
from pathlib import Path

import pytest

from fedmeta.errors import ConfigurationError
from simulations import simulate

RAW = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 2, "validation_clients": 1, "test_clients": 1},
    "task": {"ways": 1, "shots": 2, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "fomaml", "inner_lr": 0.01},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 1}},
    "evaluation": {"every": 1, "episodes": 1, "validation_episodes": 1, "pooled_episodes": 1},
}


def test_tensorboard_holds_what_metrics_hold(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = simulate(RAW, engine="inline", out=tmp_path / "run", overrides={"tracking.backends": ["tensorboard"]})
    events = EventAccumulator(str(result.path / "tensorboard"))
    events.Reload()
    found = {event.step: event.value for event in events.Scalars("train/loss")}
    assert found == pytest.approx({record["round"]: record["train"]["loss"] for record in result.history}, rel=1e-6)
    assert len(events.Scalars("validation/mse")) == 2


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="the extra `wandb` is installed")
def test_a_missing_extra_is_one_line_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"pip install 'fedmeta\[wandb\]'"):
        simulate(RAW, engine="inline", out=tmp_path / "run", overrides={"tracking.backends": ["wandb"]})
