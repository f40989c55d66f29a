"""Adversarial training, certificates, query detection and the robust column, in whole runs."""

import copy
import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedmeta.errors import ConfigurationError
from fedmeta.query_detection import DETECTORS as REGISTERED
from server.configuration import load
from server.report.certified import certificates
from server.rundir import RunDir
from server.summary import in_one_line
from simulations import simulate
from simulations.bench.cells import make_plan
from simulations.bench.grid_file import read_grid
from simulations.bench.run import bench
from simulations.command import app
from simulations.robustness_console import print_query_detection

GLYPHS: dict[str, Any] = {
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
    "partition": {"name": "alphabet", "validation_clients": 0},
    "task": {"ways": 3, "shots": 1, "queries": 2},
    "model": {"name": "mlp", "hidden": [16], "normalisation": "none"},
    "learner": {"name": "protonet"},
    "client": {"steps": 2, "tasks_per_step": 2, "execution": "loop", "optimiser": {"name": "adam", "lr": 1e-2}},
    "server": {"rounds": 3, "sampling": {"name": "fixed", "clients": 4}},
    "evaluation": {"every": 3, "episodes": 2, "pooled_episodes": 3},
}
AQ = {"client.adversarial.name": "aq", "client.adversarial.steps": 2, "client.adversarial.eps": 0.1}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("plain") / "run"
    simulate(GLYPHS, out=place, engine="inline")
    return place


def model_hash(place: Path) -> str:
    results = RunDir.open(place, exclusive=False).results()
    assert results is not None
    return str(results["model_hash"])


def test_clients_train_adversarially_and_the_others_plainly(tmp_path: Path, plain: Path) -> None:
    """The seed decides who; with nobody chosen it is the plain run, bit for bit, and its hash stays what it was."""
    nobody = simulate(
        GLYPHS, out=tmp_path / "0", engine="inline", overrides={**AQ, "client.adversarial.share": 1e-6}, report=False
    )
    half = simulate(
        GLYPHS, out=tmp_path / "1", engine="inline", overrides={**AQ, "client.adversarial.share": 0.5}, report=False
    )
    every = simulate(GLYPHS, out=tmp_path / "2", engine="inline", overrides=AQ, report=False)
    assert nobody.model_hash == model_hash(plain)
    assert len({nobody.model_hash, half.model_hash, every.model_hash}) == 3
    words = "trained adversarially (aq, linf eps 0.1) by 50 % of the clients"
    assert words in in_one_line(load(GLYPHS, {**AQ, "client.adversarial.share": 0.5}))
    assert load(GLYPHS, {}).hash == load(GLYPHS, {"client.adversarial.name": "none"}).hash != load(GLYPHS, AQ).hash


def test_engines_agree_bit_for_bit(tmp_path: Path, ray_session) -> None:
    settings = {**AQ, "server.rounds": 2, "client.adversarial.share": 0.5}
    inline = simulate(GLYPHS, out=tmp_path / "inline", engine="inline", overrides=settings, report=False)
    two = simulate(GLYPHS, out=tmp_path / "two", engine="ray", overrides={**settings, "engine.actors": 2}, report=False)
    assert inline.model_hash == two.model_hash


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learner.name": "reptile"}, ["learner 'reptile'", "use maml"]),
        ({"client.adversarial.eps": 1.5}, ["client.adversarial.eps = 1.5", "above 1"]),
        ({"client.adversarial.eps": 0.0}, ["client.adversarial.eps", "> 0"]),
        ({"client.adversarial.name": "aqq"}, ["did you mean 'aq'"]),
        ({"client.adversarial.beta": 6.0}, ["client.adversarial.beta"]),
        ({"privacy.unit": "example", "privacy.placement": "local", "privacy.noise_multiplier": 1.0}, ["example"]),
    ],
)
def test_what_cannot_train_so_is_refused(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as error:
        load(GLYPHS, {**AQ, **changes})
    for word in words:
        assert word in str(error.value)


def test_certificates_are_kept_and_drawn(plain: Path) -> None:
    done = CliRunner().invoke(
        app, ["certify", str(plain), "--sigma", ".5,.25", "--episodes", "2", "--queries", "3", "--samples", "60"]
    )
    assert done.exit_code == 0, done.output
    found = certificates(RunDir.open(plain, exclusive=False))
    assert found is not None and [curve["sigma"] for curve in found["curves"]] == [0.25, 0.5]
    for curve in found["curves"]:
        means = [each["mean"] for each in curve["accuracy"]]
        assert means == sorted(means, reverse=True) and curve["queries"] == 6
        assert means[0] <= 1 - curve["abstained"] + 1e-9
        beyond = [mean for mean, radius in zip(means, found["radii"], strict=True) if radius > curve["largest"] + 1e-9]
        assert not any(beyond)
    page = (plain / "report.html").read_text()
    assert "Certified accuracy" in page and "n = 60" in page and "not trained on noise" in page
    assert "sigma = -1.0 must be above 0" in str(
        CliRunner().invoke(app, ["certify", str(plain), "--sigma=-1"]).exception
    )


def test_a_certificate_of_one_episode_has_no_interval(plain: Path) -> None:
    asked = ["certify", str(plain), "--sigma", ".25", "--episodes", "1", "--queries", "2", "--samples", "20"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "(no interval)" in said and "1 frozen episode, 2 queries of each" in said and "it takes 2 or more" in said
    found = certificates(RunDir.open(plain, exclusive=False))
    assert found is not None and found["curves"][0]["accuracy"][0]["low"] is None
    assert "no interval from 1 episode" in (plain / "report.html").read_text()


def test_query_detection_reports_both_attackers(plain: Path) -> None:
    words = ["detect-queries", str(plain), "--eps", ".3", "--episodes", "3", "--steps", "4"]
    done = CliRunner().invoke(app, [*words, "--detectors", "max_softmax,mahalanobis,off_binary", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert set(found["detectors"]) == {"max_softmax", "mahalanobis", "off_binary"}
    for verdict in found["detectors"].values():
        assert verdict["plain"] is not None and verdict["adaptive"] is not None
        assert verdict["successes"][1] >= verdict["successes"][0] > 0
        for own in (verdict["plain"], verdict["adaptive"]):
            assert own["low"] is None or own["low"] <= own["auroc"] <= own["high"]
    assert any(verdict["plain"]["low"] is not None for verdict in found["detectors"].values())
    assert json.loads((plain / "query-detection.json").read_text()) == found
    page = (plain / "report.html").read_text()
    assert "Attacked queries" in page and "3 frozen episodes, 3-way 1-shot, against PGD of 4 steps within Linf" in page


def test_the_table_of_detectors_fits_a_terminal_also_with_what_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    known = {"auroc": 0.8, "low": 0.7123, "high": 0.9, "tpr": 1.0}
    verdicts = {
        name: {"plain": known, "adaptive": None, "successes": [100, 0], "clean": 900} for name in REGISTERED.entries()
    }
    verdicts |= {"alone": {"plain": {**known, "low": None, "high": None}, "adaptive": None, "successes": [1, 0]}}
    facts = {"norm": "linf", "eps": 0.1, "steps": 20, "episodes": 1, "ways": 5, "shots": 1, "queries": 1}
    print_query_detection({"detectors": verdicts, "protocol": facts})
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("0.800 (0.712 to 0.900)" in line for line in lines), "no cell is broken"
    said = " ".join(" ".join(lines).split())
    assert "0.800 (no interval)" in said and "no interval from 1 episode: it takes 2" in said


def test_unknown_detectors_are_refused(plain: Path) -> None:
    words = ["detect-queries", str(plain)]
    assert "did you mean 'median'" in str(CliRunner().invoke(app, [*words, "--detectors", "medan"]).exception)


def test_the_robust_column_is_there_where_it_is_asked_for(tmp_path: Path) -> None:
    grid: dict[str, Any] = {"name": "glyphs", "base": GLYPHS, "seeds": [0], "defences": [{"aggregator": "median"}]}
    evasion = {"eps": 0.2, "steps": 3, "episodes": 3}
    attacked = {**copy.deepcopy(grid), "evasion": evasion}
    before, after = make_plan(read_grid(grid)), make_plan(read_grid(attacked))
    assert [cell.key for cell in before.cells] == [cell.key for cell in after.cells]
    assert "evasion" not in before.grid.told and after.grid.told["evasion"]["eps"] == 0.2
    bench(grid, tmp_path, engine="inline")
    assert "robust" not in (tmp_path / "results.csv").read_text() + (tmp_path / "report.html").read_text()
    report = bench(attacked, tmp_path, engine="inline")  # the cells are there: only the attack is left
    for outcome in report.outcomes:
        assert outcome.state == "done", outcome.reason
        assert 0 <= outcome.values["robust"] <= outcome.values["score"] + 1e-9
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert all(float(row["robust"]) <= float(row["score"]) for row in rows)
    page = (tmp_path / "report.html").read_text()
    assert "Robust accuracy" in page and "PGD, 3 steps, linf eps 0.2" in page


def test_the_robust_column_is_refused_without_classes() -> None:
    waves = {"data": {"name": "sinusoid"}, "partition": {"name": "iid"}, "model": {"name": "sinusoid"}}
    base = {**waves, "task": {"ways": 1}, "learner": {"name": "maml", "inner_lr": 0.01}}
    with pytest.raises(ConfigurationError, match=r"remove the table \[evasion\]"):
        make_plan(read_grid({"base": base, "seeds": [0], "evasion": {"eps": 0.1}}))
    with pytest.raises(ConfigurationError, match="above 1"):
        make_plan(read_grid({"base": GLYPHS, "seeds": [0], "evasion": {"eps": 1.1}}))
