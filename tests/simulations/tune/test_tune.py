"""Searches that are really played: killed and gone on, pruned, failing, on Ray, under privacy."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fedmeta.errors import CheckpointError, ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.privacy.accounting import tightest
from fedmeta.privacy.events import Event, Gaussian
from fedmeta.privacy.ledger import Ledger
from fedmeta.privacy.schemes import Poisson
from fedmeta.privacy.units import Unit
from fedmeta.workload import Workload
from server.configuration import load
from server.rundir import RunDir
from simulations.tune.console import run_tune
from simulations.tune.private import one_division
from simulations.tune.run import tune
from simulations.tune.space import experiment_at

pytest.importorskip("optuna", reason="the extra `tune` is not installed")

ROUNDS = 30
SEARCH = ["learner.inner_lr=log:.001:.1", "client.steps=int:1:2"]
CODE = "import sys; from simulations.command import main; sys.argv = ['fedmeta', *sys.argv[1:]]; main()"


def said(report) -> list[tuple[Any, ...]]:
    return [(trial.state, trial.value, trial.round, trial.chosen) for trial in report.trials]


def test_a_search_leaves_the_best_experiment_and_asks_no_test_client(waves: dict[str, Any], tmp_path: Path) -> None:
    seen = []
    report = tune(waves, SEARCH, 4, tmp_path / "out", engine="inline", watch=lambda trial: seen.append(trial.number))
    assert seen == [0, 1, 2, 3] and report.count("complete") == 4 and report.best is not None
    values = [trial.value for trial in report.trials]
    assert report.best.value == min(values) and not report.maximise, "an error is made small"
    for trial in report.trials:
        rundir = RunDir.open(tmp_path / "out" / trial.place, exclusive=False)
        results = rundir.results()
        assert results is not None and results["best"]["score"] == trial.value and "test" not in results["last"]
        assert rundir.experiment.learner.parameters["inner_lr"] == trial.chosen["learner.inner_lr"]
    written = tomllib.loads((tmp_path / "out" / "best.toml").read_text())
    best = RunDir.open(tmp_path / "out" / report.best.place, exclusive=False).experiment
    assert load(written).hash == best.hash
    found = json.loads((tmp_path / "out" / "tuning.json").read_text())
    assert found["best"]["number"] == report.best.number and sum(found["importances"].values()) == pytest.approx(1)
    assert (tmp_path / "out" / "tuning.svg").read_text().count("<svg") == 1
    with pytest.raises(CheckpointError, match="holds a study with another search"):
        tune(waves, SEARCH[:1], 6, tmp_path / "out", engine="inline")


def test_killed_in_a_trial_it_goes_on_to_the_same_trials(waves: dict[str, Any], tmp_path: Path) -> None:
    """kill -9 in the middle of the first trial: it goes on from its checkpoint, and the second is the same draw."""
    waves["server"]["rounds"] = ROUNDS
    waves["evaluation"]["every"] = ROUNDS // 2
    (tmp_path / "waves.json").write_text(json.dumps(waves))
    code = (
        "import json, sys; from simulations.tune.run import tune; "
        "tune(json.load(open(sys.argv[1])), sys.argv[3:], 2, sys.argv[2], engine='inline', prune_after=None)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "waves.json"), str(tmp_path / "cut"), *SEARCH],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    checkpoint = tmp_path / "cut/trials/0000/checkpoints/last.safetensors"
    deadline = time.monotonic() + 200
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert 0 < RunDir.open(tmp_path / "cut/trials/0000").load("last").round < ROUNDS, "killed in the middle"
    gone_on = tune(waves, SEARCH, 2, tmp_path / "cut", engine="inline", prune_after=None)
    whole = tune(waves, SEARCH, 2, tmp_path / "whole", engine="inline", prune_after=None)
    assert said(gone_on) == said(whole) and gone_on.count("complete") == 2
    models = [RunDir.open(tmp_path / place / "trials/0000", exclusive=False).results() for place in ("cut", "whole")]
    assert models[0] is not None and models[1] is not None
    assert models[0]["model_hash"] == models[1]["model_hash"], "played on, not anew"


def test_what_fails_is_told_and_the_rest_goes_on(waves: dict[str, Any], tmp_path: Path) -> None:
    """A rule that bears no more than so many attackers: some choices of f are refused when they meet few clients."""
    waves["server"] |= {"aggregator": {"name": "trimmed_mean", "f": 1}, "sampling": {"name": "fixed", "clients": 3}}
    search = ["server.aggregator.f=choice:0,1", "server.sampling.clients=choice:2,3"]
    waves["server"]["rounds"] = 2
    waves["server"]["aggregator"]["f"] = 0
    report = tune(waves, search, 6, tmp_path, engine="inline", prune_after=None)
    bad = [trial for trial in report.trials if trial.chosen == {search[0][:19]: 1, "server.sampling.clients": 2}]
    assert bad and all(trial.state == "failed" and "trimmed_mean" in str(trial.reason) for trial in bad)
    assert report.count("complete") == 6 - len(bad) > 0 and report.best not in bad


def test_a_trial_below_the_median_is_pruned(waves: dict[str, Any], tmp_path: Path) -> None:
    """A server that runs away is worse at its first validation than the median of three that do not."""
    waves["server"] |= {"rounds": 6, "optimiser": {"name": "sgd", "lr": 0.1}}
    waves["evaluation"]["every"] = 1
    report = tune(waves, ["server.optimiser.lr=log:.001:30"], 7, tmp_path, engine="inline", prune_after=2, seed=1)
    pruned = [trial for trial in report.trials if trial.state == "pruned"]
    assert pruned and all(trial.number >= 2 and trial.round < 6 for trial in pruned)
    for trial in pruned:
        rundir = RunDir.open(tmp_path / trial.place, exclusive=False)
        assert rundir.load("last").round == trial.round and rundir.results() is None
    assert report.best is not None and report.best.chosen["server.optimiser.lr"] < 5


def test_trials_in_parallel_on_ray(waves: dict[str, Any], tmp_path: Path, ray_session) -> None:
    report = tune(waves, SEARCH, 4, tmp_path, parallel=2, prune_after=None)
    assert report.count("complete") == 4, [trial.reason for trial in report.trials]
    for trial in report.trials:
        assert RunDir.open(tmp_path / trial.place, exclusive=False).load("last").round == 4


def test_private_trials_judge_by_clients_that_train_in_none() -> None:
    """Who validates is drawn by a seed, and trials have a seed each: whoever judged one would train in another."""
    users = {
        "data": {"name": "ratings", "users": 30, "each": 20, "items": 40},
        "partition": {"name": "column", "column": "user", "validation_clients": 5},
        "task": {"ways": 1, "shots": 10},
        "model": {"name": "items"},
        "learner": {"name": "anil"},
        "seed": 4,
    }
    base = load(users)

    def names(experiment: Experiment) -> list[tuple[str, str]]:
        return [(client.role, client.name) for client in Workload(experiment).federation.clients]

    trial = experiment_at(one_division(base), {"learner.inner_lr": 0.2}, 77)
    assert trial.seed == 77 and names(trial) == names(base) != names(experiment_at(base, {}, 77))
    assert base.hash == load(base, {"partition.seed": None}).hash != load(base, {"partition.seed": 4}).hash


def test_a_private_search_draws_its_number_of_trials_and_is_accounted(waves: dict[str, Any], tmp_path: Path) -> None:
    waves["privacy"] = {"unit": "client", "noise_multiplier": 1.0, "delta": 1e-2, "accountant": "rdp"}
    waves["server"]["sampling"] = {"name": "poisson", "rate": 0.5}
    search = ["server.optimiser.lr=log:.01:1"]
    report = tune(waves, search, 2, tmp_path, engine="inline", law="0", seed=3)
    run = Event(Gaussian(1.0), Poisson(0.5), count=4)
    one, ledger = tightest([run], 1e-2, "rdp").epsilon, Ledger(tmp_path / "privacy.jsonl")
    found = report.privacy
    assert found is not None and found["drawn"] == len(report.trials) == report.count("complete") >= 1
    assert ledger.unreleased == 0 and len(ledger.entries) == 1
    assert found["epsilon"] == tightest(ledger.events(Unit.CLIENT), 1e-2).epsilon
    assert one < found["epsilon"] < found["run_again"] and "logarithmic (shape 0), mean 2" in found["law"]
    played = [RunDir.open(tmp_path / trial.place, exclusive=False).experiment for trial in report.trials]
    assert len({experiment.seed for experiment in played}) == len(report.trials), "their noise is independent"
    assert {experiment.partition.parameters["seed"] for experiment in played} == {0}, "on one division of the data"
    again = tune(waves, search, 2, tmp_path, engine="inline", law="0", seed=3)
    assert said(again) == said(report) and len(Ledger(tmp_path / "privacy.jsonl").entries) == 1
    with pytest.raises(ConfigurationError, match="changes what a run releases"):
        tune(waves, ["server.rounds=int:2:4"], 2, tmp_path / "other", engine="inline")
    waves["privacy"]["placement"] = "local"
    with pytest.raises(ConfigurationError, match="the server, which sees every trial"):
        tune(waves, search, 2, tmp_path / "local", engine="inline")


@pytest.mark.slow
def test_the_command_prints_a_table_and_its_best_file_runs(waves: dict[str, Any], tmp_path: Path) -> None:
    from simulations.describe import describe

    (tmp_path / "waves.toml").write_text(describe(load(waves)))
    call = [sys.executable, "-c", CODE]
    options = ["--search", SEARCH[0], "--trials", "3", "--out", str(tmp_path / "out"), "--engine", "inline"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "COLUMNS": "200"}
    done = subprocess.run(
        [*call, "tune", str(tmp_path / "waves.toml"), *options], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "Best trials" in done.stdout and f"fedmeta simulate {tmp_path / 'out' / 'best.toml'}" in done.stdout
    best = [*call, "simulate", str(tmp_path / "out/best.toml"), "--engine", "inline", "--out", str(tmp_path / "run")]
    assert subprocess.run(best, env=environment).returncode == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"search": ["learner.inner_lr=log:.1:.01"]}, "learner.inner_lr"),
        ({"trials": 0}, "trials = 0 must be at least 1"),
        ({"engine": "cloud"}, "unknown engine 'cloud'"),
        ({"parallel": 0}, "workers = 0 must be at least 1"),
        ({"prune_after": -1}, "prune_after = -1 must be at least 1"),
        ({"seed": -1}, "seed = -1 must be at least 0"),
    ],
)
def test_what_cannot_be_is_refused_before_there_is_a_bar_or_a_folder(
    waves: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], words: str
) -> None:
    given = {"search": SEARCH, "trials": 2, "engine": "inline", **options}
    with pytest.raises(ConfigurationError, match=words):
        run_tune(waves, given.pop("search"), given.pop("trials"), tmp_path / "out", **given)
    assert capsys.readouterr().out == "" and not (tmp_path / "out").exists()
