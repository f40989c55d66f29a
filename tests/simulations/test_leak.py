"""`fedmeta leak-check`: pictures in the report of a run, originals beside reconstructions."""

import pytest
from typer.testing import CliRunner

from fedmeta.errors import ConfigurationError
from server.rundir import RunDir
from simulations import simulate
from simulations.command import app
from simulations.leak import leak

RAW = {
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
    "task": {"ways": 3, "shots": 1, "queries": 1},
    "model": {"name": "mlp", "hidden": [32], "normalisation": "none"},
    "learner": {"name": "fomaml", "inner_lr": 0.1},
    "client": {"steps": 1, "tasks_per_step": 1},
    "server": {"rounds": 1, "sampling": {"name": "fixed", "clients": 2}},
    "evaluation": {"episodes": 2, "validation_episodes": 2, "pooled_episodes": 2},
}


def test_pictures_in_the_report(tmp_path):
    simulate(RAW, engine="inline", out=tmp_path / "r")
    done = CliRunner().invoke(app, ["leak-check", str(tmp_path / "r")])
    assert done.exit_code == 0, done.output
    assert f"report: {tmp_path / 'r' / 'report.html'}" in done.output
    found = RunDir.open(tmp_path / "r", exclusive=False).leak()
    assert found["levels"][0] == 0 and len(found["inputs"]) == 5 and len(found["found"]) == len(found["levels"])
    means = [sum(row) / len(row) for row in found["cosines"]]
    assert means[0] > 0.8 > means[-1] + 0.2
    assert "What one update shows" in (tmp_path / "r" / "report.html").read_text()
    assert (tmp_path / "r" / "plots" / "leak.png").exists()
    with pytest.raises(ConfigurationError, match="no training client"):
        leak(tmp_path / "r", 10_000)


def test_a_convolutional_run_is_refused(tmp_path):
    simulate({**RAW, "model": {"name": "conv4", "filters": 2}}, engine="inline", out=tmp_path / "r", report=False)
    with pytest.raises(ConfigurationError, match="first layer is linear"):
        leak(tmp_path / "r")
