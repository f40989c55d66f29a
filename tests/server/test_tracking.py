"""Metrics beside the run directory."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedmeta.errors import ConfigurationError, FedmetaError
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

    result = simulate(
        RAW, engine="inline", out=tmp_path / "run", overrides={"tracking.backends": ["tensorboard"]}, report=False
    )
    events = EventAccumulator(str(result.path / "tensorboard"))
    events.Reload()
    found = {event.step: event.value for event in events.Scalars("train/loss")}
    assert found == pytest.approx({record["round"]: record["train"]["loss"] for record in result.history}, rel=1e-6)
    assert len(events.Scalars("validation/mse")) == 2


@pytest.mark.parametrize("backend", ["wandb", "tensorboard", "mlflow", "prometheus"])
def test_a_missing_extra_is_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    for name in ("wandb", "tensorboard", "torch.utils.tensorboard", "mlflow", "prometheus_client"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ConfigurationError, match=rf"'{backend}', which cannot .*pip install 'fedmeta\[{backend}\]'"
    ) as e:
        simulate(RAW, engine="inline", out=tmp_path / "run", overrides={"tracking.backends": [backend]}, report=False)
    assert "\n" not in str(e.value)


def test_wandb_is_offline_and_in_the_run_directory_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, Any]] = []
    logged: list[tuple[int, dict[str, float]]] = []

    class Run:
        def log(self, scalars: dict[str, float], step: int) -> None:
            logged.append((step, scalars))

        def finish(self) -> None:
            logged.append((-1, {}))

    def init(**settings: Any) -> Run:
        begun.append(settings)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    result = simulate(
        RAW, engine="inline", out=tmp_path / "run", overrides={"tracking.backends": ["wandb"]}, report=False
    )
    assert begun[0]["mode"] == "offline" and begun[0]["dir"] == str(result.path)
    assert [step for step, _ in logged] == [1, 2, -1] and "validation/mse" in logged[0][1]
    monkeypatch.setenv("WANDB_MODE", "disabled")
    simulate(RAW, engine="inline", out=tmp_path / "other", overrides={"tracking.backends": ["wandb"]}, report=False)
    assert begun[1]["mode"] == "disabled"


def test_mlflow_holds_what_metrics_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = simulate(
        RAW, engine="inline", out=tmp_path / "run", overrides={"tracking.backends": ["mlflow"]}, report=False
    )
    client = MlflowClient(tracking_uri=f"sqlite:///{result.path / 'mlflow.db'}")
    project = client.get_experiment_by_name("fedmeta")
    assert project is not None
    [run] = client.search_runs([project.experiment_id])
    found = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "train/loss")}
    assert found == pytest.approx({record["round"]: record["train"]["loss"] for record in result.history})
    assert run.info.status == "FINISHED" and run.data.params["learner.name"] == "fomaml"


def test_prometheus_reads_the_last_round_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="the extra `prometheus` is not installed")

    monkeypatch.setenv("FEDMETA_PROMETHEUS", str(tmp_path))
    result = simulate(
        RAW, engine="inline", out=tmp_path / "run", overrides={"tracking.backends": ["prometheus"]}, report=False
    )
    families = parser.text_string_to_metric_families((tmp_path / "run.prom").read_text())
    found = {(s.name, s.labels.get("name")): s.value for family in families for s in family.samples}
    assert found["fedmeta_round", None] == found["fedmeta_rounds", None] == 2
    assert found["fedmeta_scalar", "train/loss"] == pytest.approx(result.history[-1]["train"]["loss"])
    assert found["fedmeta_scalar", "clients/failed"] == 0 and found["fedmeta_scalar", "clients/sampled"] == 1
    monkeypatch.setenv("FEDMETA_PROMETHEUS", str(tmp_path / "nowhere"))
    with pytest.raises(FedmetaError, match="cannot write"):
        simulate(
            RAW, engine="inline", out=tmp_path / "other", overrides={"tracking.backends": ["prometheus"]}, report=False
        )
