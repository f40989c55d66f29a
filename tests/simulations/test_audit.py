"""`fedmeta audit` on a whole run: below the claim where the mechanism is right, above it where its noise is halved."""

import json

import pytest
from typer.testing import CliRunner

from fedmeta.errors import ConfigurationError
from fedmeta.privacy.central import CentralGaussian
from simulations import simulate
from simulations.audit import audit
from simulations.command import app

RAW = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 8, "validation_clients": 0, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "reptile", "inner_lr": 0.01, "inner_steps": 1, "test_steps": 1},
    "client": {"steps": 1, "tasks_per_step": 1, "execution": "loop"},
    "server": {"rounds": 4, "sampling": {"name": "poisson", "rate": 1.0}, "optimiser": {"name": "sgd", "lr": 1e-4}},
    "evaluation": {"episodes": 2, "pooled_episodes": 2},
    "privacy": {"unit": "client", "noise_multiplier": 2.0, "delta": 1e-5},
}


def test_a_run_beside_its_claim(tmp_path):
    run = simulate(RAW, engine="inline", out=tmp_path / "run")
    done = CliRunner().invoke(
        app,
        [
            "audit",
            str(tmp_path / "run"),
            "--engine",
            "inline",
            "--canaries",
            "1200",
            "--out",
            str(tmp_path / "audit"),
            "--json",
        ],
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["claim"] == run.results["privacy"]["epsilon"] == pytest.approx(4.38, abs=0.02)
    assert (
        0 < found["one_run"]["epsilon"] < found["claim"] and 0.4 * found["claim"] < found["by_rates"] < found["claim"]
    )
    assert 0.6 * found["claim"] < found["estimate"] < 2 * found["claim"]
    for name in ("run", "audit"):
        assert "by the one-run audit" in (tmp_path / name / "report.html").read_text()
    assert (tmp_path / "run" / "results.json").exists()


def test_silently_halved_noise_is_found(tmp_path, monkeypatch):
    right = CentralGaussian.release

    def halved(self, rows, round):
        honest, self.noise_multiplier = self.noise_multiplier, self.noise_multiplier / 2
        try:
            return right(self, rows, round)
        finally:
            self.noise_multiplier = honest

    monkeypatch.setattr(CentralGaussian, "release", halved)
    found = audit(RAW, canaries=1500, engine="inline", out=tmp_path / "r")
    assert found["by_rates"] > found["claim"] and found["estimate"] > 1.5 * found["claim"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"privacy.placement": "local"}, "placement = 'central'"),
        ({"privacy.unit": "task"}, "unit = 'client'"),
        ({"server.sampling": {"name": "fixed", "clients": 2}}, "use poisson"),
        ({}, "canaries = 10 must be >= 20"),
    ],
)
def test_what_cannot_be_audited_is_refused(tmp_path, overrides, words):
    played = []
    with pytest.raises(ConfigurationError, match=words):
        audit(RAW, canaries=10, engine="inline", overrides=overrides, out=tmp_path / "r", observers=[played.append])
    assert not played
