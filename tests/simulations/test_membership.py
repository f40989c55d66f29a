"""`fedmeta audit --membership` on real federations: an overfitted one is found out, a private one keeps its word."""

import json
import warnings
from typing import Any

import pytest
from typer.testing import CliRunner

from fedmeta.errors import ConfigurationError
from simulations import simulate
from simulations.command import app
from simulations.launch import open_run, play
from simulations.membership import audit_membership, exceeds

RAW: dict[str, Any] = {
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
    "partition": {"name": "alphabet", "validation_clients": 0},
    "task": {"ways": 5, "shots": 1, "queries": 1},
    "model": {"name": "mlp", "hidden": [24], "normalisation": "none"},
    "learner": {"name": "protonet"},
    "client": {
        "steps": 6,
        "tasks_per_step": 2,
        "execution": "vmap",
        "optimiser": {"name": "adam", "lr": 0.01},
    },
    "server": {"rounds": 5, "sampling": {"name": "poisson", "rate": 1.0}},
    "evaluation": {"episodes": 1, "pooled_episodes": 1},
}
PRIVACY = {"unit": "client", "noise_multiplier": 2.0, "clip_norm": 0.5, "delta": 1e-3}


@pytest.mark.slow
def test_an_overfitted_federation_tells_who_took_part(tmp_path) -> None:
    simulate(RAW, engine="inline", out=tmp_path / "run")
    done = CliRunner().invoke(
        app, ["audit", str(tmp_path / "run"), "--membership", "--engine", "inline", "--tasks", "3"]
    )
    assert done.exit_code == 0, done.output
    assert (
        "Few: 16 shadow federations of 14 clients" in done.output and "No bound: the run has no privacy" in done.output
    )
    found = json.loads((tmp_path / "run" / "membership.json").read_text())
    assert found["loss_in"] < found["loss_out"]
    for way in ("online", "offline"):
        assert found[way]["auroc"] > 0.6 and found[way]["low"] > 0.5
    assert "Who took part?" in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "run" / "plots" / "membership.png").exists()


@pytest.mark.slow
def test_under_privacy_the_attack_stays_below_the_bound(tmp_path) -> None:
    simulate({**RAW, "privacy": PRIVACY}, engine="inline", out=tmp_path / "run", report=False)
    before = (tmp_path / "run" / "privacy.jsonl").read_bytes()
    found = audit_membership(tmp_path / "run", tasks=3)
    claim = found["bound"]
    assert claim["delta"] == 1e-3 and claim["epsilon"] < 5 and not exceeds(found)
    for way in ("online", "offline"):
        assert found[way]["high"] < claim["auroc"] and found[way]["shown"] <= claim["epsilon"]
    assert (tmp_path / "run" / "privacy.jsonl").read_bytes() == before, "shadows spend nothing of the run's"


def test_six_shadows_of_a_private_run_beside_its_claim(tmp_path) -> None:
    tiny = {**RAW, "privacy": PRIVACY, "client": {**RAW["client"], "steps": 1, "execution": "loop"}}
    play(open_run(tiny, {"server.rounds": 1}, tmp_path / "run"), "inline", draw=False)
    before = (tmp_path / "run" / "privacy.jsonl").read_bytes()
    arguments = ["audit", str(tmp_path / "run"), "--membership", "--engine", "inline", "--shadows", "6", "--tasks", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    first, *shadows = done.output.splitlines()[:7]
    assert first == "6 shadow federations of 14 clients: 6 trainings of 1 round each", "its cost before its beginning"
    assert [line.partition(":")[0] for line in shadows] == [f"shadow {index} of 6" for index in range(1, 7)]
    assert "Few: 6 shadow federations of 14 clients" in done.output and "at delta 0.001 allows AUROC" in done.output
    found = json.loads((tmp_path / "run" / "membership.json").read_text())
    assert (found["members"], found["others"]) == (42, 42) and not exceeds(found)
    assert (tmp_path / "run" / "privacy.jsonl").read_bytes() == before, "shadows spend nothing of the run's"
    assert "Who took part?" in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "run" / "plots" / "membership.png").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"privacy": {**PRIVACY, "placement": "local"}}, "placement = 'local'"),
        ({"attack": {"method": {"name": "sign_flip"}}}, "attack.method"),
    ],
)
def test_what_has_no_honest_shadows_is_refused(tmp_path, changes, words) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no round, so that the attack has no effect
        play(open_run({**RAW, **changes}, {"server.rounds": 0}, tmp_path / "run"), "inline", draw=False)
    with pytest.raises(ConfigurationError, match=words):
        audit_membership(tmp_path / "run")
    done = CliRunner().invoke(app, ["audit", str(tmp_path / "run"), "--membership", "--set", "seed=1"])
    assert isinstance(done.exception, ConfigurationError) and "as it is" in str(done.exception)
