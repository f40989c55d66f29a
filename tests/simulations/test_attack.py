"""`fedmeta attack` on a finished run: table, file, report, and what is refused."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedmeta.errors import CheckpointError, ConfigurationError, FedmetaError
from server.report.evasion import protocol_in_words
from server.rundir import RunDir
from simulations import simulate
from simulations.attack import attack, plan_of
from simulations.command import app
from simulations.console import print_evasion

RAW: dict[str, Any] = {
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
    "partition": {"name": "alphabet", "validation_clients": 0},
    "task": {"ways": 5, "shots": 1, "queries": 2},
    "model": {"name": "mlp", "hidden": [16], "normalisation": "none"},
    "learner": {"name": "protonet"},
    "client": {"steps": 1, "tasks_per_step": 2, "execution": "loop"},
    "server": {"rounds": 1, "sampling": {"name": "fixed", "clients": 3}},
    "evaluation": {"episodes": 1, "pooled_episodes": 3},
}
QUICK = ["--episodes", "4", "--eps", "0.2,.05", "--set", "pgd.steps=3", "--set", "square.queries=5"]


def run(folder: Path, **changes: Any):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return simulate({**RAW, **changes}, engine="inline", out=folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    """A run of one round."""
    return run(tmp_path_factory.mktemp("attack") / "run")


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["attack", *arguments])


def test_a_finished_run_is_attacked(finished) -> None:
    path = str(finished.path)
    done = invoke(path, "--attacks", "noise,pgd,square", *QUICK)
    assert done.exit_code == 0, done.output
    assert "Accuracy under attack, last model, round 1" in done.output
    words = " ".join(done.output.split())
    for part in ("the query is moved, the support is clean", "4 frozen episodes", "5-way 1-shot", "worst of all"):
        assert part in words, part
    assert "pgd (white box; steps 3, step 0.125, restarts 1, random_start yes, targets 0)" in words
    assert "square (black box; queries 5, share 0.8)" in words
    (record,) = RunDir.open(path, exclusive=False).evasion()
    assert record["protocol"]["eps"] == [0.05, 0.2] and record["clean"]["count"] == 4
    assert [(one["attack"], one["eps"]) for one in record["attacks"]] == [
        (name, eps) for eps in (0.05, 0.2) for name in ("noise", "pgd", "square")
    ]
    for worst in record["worst"]:
        own = [one for one in record["attacks"] if one["eps"] == worst["eps"]]
        assert worst["accuracy"]["mean"] <= min(one["accuracy"]["mean"] for one in own) + 1e-12
        assert all(one["seconds"] > 0 and one["accuracy"]["mean"] <= record["clean"]["mean"] for one in own)
    rows = record["pictures"]["rows"]
    assert [row["eps"] for row in rows] == [0, 0.05, 0.2] and rows[0]["attack"] is None
    assert len(record["pictures"]["labels"]) == 6 and len(rows[1]["images"][0]) == 28
    page = (finished.path / "report.html").read_text()
    assert "Under attack: query, Linf" in page and "Attacked inputs" in page
    assert (finished.path / "plots" / "evasion.png").exists() and (
        finished.path / "plots" / "evasion-inputs.png"
    ).exists()


@pytest.mark.slow
def test_several_threat_models_stand_side_by_side(finished, tmp_path: Path) -> None:
    """One record for a model, a norm and what was moved: the newest."""
    found = attack(finished.path, plan_of("l2", "2", "fgsm", "support"), episodes=2)
    (row, moved) = found["pictures"]["rows"]
    assert found["protocol"]["on"] == "support" and moved["answers"] is None and moved["queries"] == 10
    assert moved["right"] <= row["right"] and "0 % of inputs" not in protocol_in_words(found)
    page = (finished.path / "report.html").read_text()
    assert "Under attack: support, L2" in page and "of 10 right" in page
    rundir = RunDir.open(finished.path, exclusive=False)
    before = rundir.evasion()
    rundir.write_evasion({**found, "round": 7})
    kept = rundir.evasion()
    assert len(kept) == len(before) and kept[-1]["round"] == 7 and kept[:-1] == before[:-1]


def test_what_is_missing_at_the_end_is_missed_before_the_beginning(
    finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report names the run's attack and defence, and lies in its directory: nothing is measured without these."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("measured before it was known that the report cannot be written")

    monkeypatch.setattr("simulations.attack.robustness", never)
    shutil.copytree(finished.path, tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace('"name": "mean"', '"name": "their_plugin"'))
    plan = plan_of("linf", ".1", "fgsm", "query")
    with pytest.raises(ConfigurationError, match="unknown aggregator 'their_plugin'"):
        attack(tmp_path / "run", plan, episodes=2)

    def read_only(**_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(FedmetaError, match="where findings and report go: Read-only file system"):
        attack(finished.path, plan, episodes=2)


def test_what_cannot_be_attacked_is_refused(finished, tmp_path: Path) -> None:
    path = finished.path
    for arguments, words in (
        (("linf", "-.1", "pgd", "query"), "eps = -0.1 is no radius"),
        (("linf", ".1,2", "pgd", "query"), "eps = 2 is above 1"),
        (("linf", ".1;.2", "pgd", "query"), "is not a number"),
        (("linf", "", "pgd", "query"), "one or more radii"),
        (("linf", ".1", "pgdd", "query"), "unknown evasion 'pgdd'; did you mean 'pgd'"),
        (("linf", ".1", "", "query"), "no attack to try"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            plan_of(*arguments)
    for settings, words in ((["steps=3"], "name attack and parameter"), (["pgd.step=-1"], "must be > 0")):
        with pytest.raises(ConfigurationError, match=words):
            plan_of("linf", ".1", "pgd", "query", settings)
    plan = plan_of("linf", ".1", "pgd", "query")
    with pytest.raises(ConfigurationError, match="--episodes 0"):
        attack(path, plan, episodes=0)
    with pytest.raises(ConfigurationError, match="'last' and 'best'"):
        attack(path, plan, model="first")
    with pytest.raises(CheckpointError, match="is not a run directory"):
        attack(tmp_path / "nothing", plan)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(path / "config.json", bare)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        attack(bare, plan)
    assert not (bare / "evasion.json").exists()


def test_what_a_run_does_not_allow_is_refused_on_the_command_line(tmp_path: Path) -> None:
    """Two classes, whose logits have no third, and inner steps that are detached."""
    changes = {"task": {**RAW["task"], "ways": 2}, "learner": {"name": "reptile", "inner_steps": 2}}
    place = str(simulate({**RAW, **changes}, engine="inline", out=tmp_path / "run", report=False).path)
    for arguments, words in (
        (("--attacks", "apgd_dlr"), "2 classes are too few"),
        (("--attacks", "pgd", "--set", "pgd.targets=3"), "2 classes are too few"),
        (("--attacks", "pgd", "--on", "support"), "'reptile' gives none: its inner steps are detached"),
        (("--attacks", "pgd", "--eps", "1.5"), "eps = 1.5 is above 1"),
        (("--attacks", "pgd", "--eps=-.1"), "eps = -0.1 is no radius"),
    ):
        done = invoke(place, *arguments, "--episodes", "2")
        assert isinstance(done.exception, ConfigurationError) and words in str(done.exception), done.output
    assert not (tmp_path / "run" / "evasion.json").exists()


def test_one_episode_gives_no_interval(finished, capsys: pytest.CaptureFixture[str]) -> None:
    """One value shows no spread: null in files, `no interval` in print and on the page, with what it takes."""
    found = attack(finished.path, plan_of("linf", ".1", "fgsm", "query"), episodes=1)
    stored = RunDir.open(finished.path, exclusive=False).evasion()[-1]
    for estimate in (found["clean"], stored["clean"], stored["worst"][0]["accuracy"]):
        assert estimate["low"] is None and estimate["high"] is None and estimate["count"] == 1
    print_evasion(found)
    said = " ".join(capsys.readouterr().out.split())
    assert "(no interval)" in said and "1 frozen episode across" in said and "it takes 2 or more" in said
    assert "no interval from 1 episode" in (finished.path / "report.html").read_text()
