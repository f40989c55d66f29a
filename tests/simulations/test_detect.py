"""A run's model under suspicion, and in use under defences: command, files, table and report."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fedmeta.attacks.success import AttackSuccess
from fedmeta.errors import ConfigurationError
from fedmeta.statistics import Evaluation
from server.rundir import RunDir
from simulations import simulate
from simulations.command import app
from simulations.detect import detect
from simulations.result_tables import deployment_table

RAW: dict[str, Any] = {
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
    "partition": {"name": "alphabet", "validation_clients": 0},
    "task": {"ways": 5, "shots": 1, "queries": 2},
    "model": {"name": "conv4", "filters": 4, "normalisation": "group", "groups": 2},
    "learner": {"name": "fomaml", "inner_lr": 0.1, "test_steps": 2},
    "client": {"steps": 1, "tasks_per_step": 2, "execution": "loop"},
    "server": {"rounds": 1, "sampling": {"name": "fixed", "clients": 3}},
    "evaluation": {
        "episodes": 2,
        "pooled_episodes": 3,
        "deployment": [{"name": "matching_head"}, {"name": "random_finetune", "steps": 3}],
    },
    "attack": {"method": {"name": "badnets"}, "fraction": 0.3, "steps": [0, 2]},
}


def run(folder: Path, **changes: Any):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return simulate({**RAW, **changes}, engine="inline", out=folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    """An attacked run whose model is judged under both defences."""
    return run(tmp_path_factory.mktemp("detect") / "run")


def test_the_model_is_judged_under_each_defence(finished) -> None:
    last = finished.results["last"]
    assert [(one["name"], one.get("steps")) for one in last["deployed"]] == [
        ("matching_head", None),
        ("random_finetune", 3),
    ]
    for found in last["deployed"]:
        for split in ("test", "pooled"):
            evaluation = Evaluation.from_json(found[split])
            assert evaluation.protocol == Evaluation.from_json(last[split]).protocol, "the same episodes"
            assert 0 <= evaluation.after.mean <= 1 and evaluation.baseline is None
            assert AttackSuccess.from_json(found["attack"][split]).steps == (0, 2)
    before = Evaluation.from_json(last["deployed"][0]["pooled"]).loss[0].mean
    assert before == pytest.approx(1.6094, abs=1e-3), "the matching head has seen nothing: log 5"
    console = Console(width=200)
    with console.capture() as captured:
        console.print(deployment_table(finished.results))
    page = (finished.path / "report.html").read_text()
    for text in (captured.get(), page):
        assert "matching_head" in text and "random_finetune (steps=3" in text and "attack success, 2 steps" in text
    assert deployment_table({"last": {"pooled": last["pooled"]}}) is None


def test_defences_can_be_tried_on_a_finished_run(finished, tmp_path: Path) -> None:
    """They are no part of what a run depends on: the same model, the same figures, resumed with other defences."""
    plain = run(tmp_path / "plain", evaluation={"episodes": 2, "pooled_episodes": 3})
    assert "deployed" not in plain.results["last"] and plain.model_hash == finished.model_hash
    tried = simulate(
        resume=tmp_path / "plain",
        engine="inline",
        overrides={"evaluation.deployment": [{"name": "matching_head"}]},
        report=False,
    )
    assert tried.results["last"]["deployed"][0] == finished.results["last"]["deployed"][0]
    assert tried.results["last"]["pooled"] == plain.results["last"]["pooled"]


def test_detect_finds_a_trigger_for_each_slot_and_draws_them(finished) -> None:
    path = str(finished.path)
    done = CliRunner().invoke(app, ["detect", path, "--episodes", "2", "--steps", "5", "--success", "0.1"])
    assert done.exit_code == 0, done.output
    assert "Smallest triggers of the model of round 1" in done.output and "spectral signatures of 500" in done.output
    found = RunDir.open(path, exclusive=False).detection()
    assert found is not None and len(found["inversion"]["slots"]) == 5 and found["inversion"]["stamped"] == "query"
    assert found["spectral"]["poisoned"] == 50 and 0 <= found["spectral"]["all"]["auroc"] <= 1
    page = (finished.path / "report.html").read_text()
    assert "A backdoor?" in page and (finished.path / "plots" / "inversion.png").exists()
    again = CliRunner().invoke(app, ["detect", path, "--episodes", "2", "--steps", "5", "--success", "0.1", "--json"])
    assert json.loads(again.output) == found, "the same figures from the same run"


def test_what_cannot_be_examined_is_refused(finished, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'query' or on 'both'"):
        detect(finished.path, stamped="support")
    waves = {
        "data": {"name": "sinusoid"},
        "partition": {"name": "iid", "clients": 3, "validation_clients": 0, "test_clients": 1},
        "task": {"ways": 1, "shots": 2, "queries": 2},
        "model": {"name": "sinusoid"},
        "learner": {"name": "maml", "inner_lr": 0.01},
        "evaluation": {"episodes": 1, "pooled_episodes": 1},
        "attack": {"method": {"name": "none"}},
    }
    run(tmp_path / "waves", **waves)
    with pytest.raises(ConfigurationError, match="triggers are sought on images of classes"):
        detect(tmp_path / "waves")
