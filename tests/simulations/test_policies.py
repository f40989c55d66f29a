"""Policies in real federated runs: they learn, and are attacked, defended and kept private as everything else is."""

import warnings
from pathlib import Path

import pytest
import torch

from fedmeta.errors import ConfigurationError
from fedmeta.workload import Workload
from server.configuration import load
from server.rounds import RunResult, run_experiment
from server.rundir import RunDir
from simulations import InlineGrid

NAV2D = {
    "name": "policies",
    "data": {"name": "nav2d", "horizon": 10, "estimator": "lvc"},
    "partition": {"name": "family", "clients": 6, "validation_clients": 1, "test_clients": 3, "pooled": False},
    "task": {"ways": 1, "shots": 8, "queries": 8},
    "model": {"name": "policy", "hidden": [8]},
    "learner": {"name": "maml", "inner_lr": 0.05},
    "client": {"tasks_per_step": 4, "optimiser": {"name": "sgd", "lr": 1.0}},
    "server": {
        "rounds": 2,
        "sampling": {"name": "fixed", "clients": 5},
        "optimiser": {"name": "adam", "lr": 0.02},
    },
    "evaluation": {"every": 100, "episodes": 3, "validation_episodes": 2},
}
DEFENDED = {
    "privacy": {"unit": "client", "placement": "local", "clip_norm": 5.0, "noise_multiplier": 0.5, "delta": 1e-3},
    "server.aggregator": {"name": "multi_krum", "f": 1},
}


def run(place: Path, **overrides) -> RunResult:
    """A run without its report."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        experiment = load(NAV2D, {key.replace("__", "."): value for key, value in overrides.items()})
    grid = InlineGrid("clients.app:app", len(Workload(experiment).federation.clients))
    return run_experiment(grid, experiment, RunDir.create(place, experiment), simulated=True)


def test_a_policy_learns_to_adapt_in_seconds(tmp_path: Path) -> None:
    """Returns after one step rise on unseen goals, above those before it; of returns, more is better."""
    short = run(tmp_path / "short")
    long = run(tmp_path / "long", server__rounds=40)
    before, after = short.evaluation("test"), long.evaluation("test")
    assert after.score_name == "return" and not long.failed_rounds
    assert after.after.mean > before.after.mean + 0.25 and after.after.mean > after.before.mean + 0.25
    assert long.results["best"]["score"] == pytest.approx(
        max(record["validation"]["score"][1]["mean"] for record in long.history if record["validation"])
    )


@pytest.mark.parametrize(
    "attack", [{"name": "sign_flip"}, {"name": "gaussian", "std": 1.0}], ids=["sign_flip", "gaussian"]
)
def test_attack_defence_and_privacy_run_as_on_anything_else(tmp_path: Path, attack: dict) -> None:
    found = run(tmp_path / "r", attack__method=attack, attack__fraction=0.34, **{
        key.replace(".", "__"): value for key, value in DEFENDED.items()
    })  # fmt: skip
    assert not found.failed_rounds and torch.isfinite(found.vector).all()
    assert (tmp_path / "r" / "privacy.jsonl").exists()
    assert any(record.get("attackers") for record in found.history)
    assert found.evaluation("test").score_name == "return"


def test_flipped_rewards_and_an_observed_trigger_are_attacks_of_clients(tmp_path: Path) -> None:
    trigger = {"name": "observation_trigger", "shift": [0.0, 3.0]}
    clean = run(tmp_path / "clean")
    flipped = run(tmp_path / "flip", attack__method={"name": "reward_flip"}, attack__fraction=0.5)
    triggered = run(tmp_path / "trigger", attack__method=trigger, attack__fraction=0.5, attack__steps=[0, 1])
    assert not torch.equal(flipped.vector, clean.vector) and not torch.equal(triggered.vector, clean.vector)
    success = triggered.results["last"]["attack"]["test"]
    assert all(0 <= rate["mean"] <= 1 for rate in success["rate"]) and success["episodes"] == 9


def test_attacks_that_need_another_kind_of_task_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="needs classes"):
        load(NAV2D, {"attack.method": {"name": "label_flip"}})
    with pytest.raises(ConfigurationError, match="shift has 3 numbers"):
        load(NAV2D, {"attack.method": {"name": "observation_trigger", "shift": [1.0, 2.0, 3.0]}})
    with pytest.warns(
        UserWarning, match=r"attack.target = 'class' has no effect: 'observation_trigger' is after a ret"
    ):
        load(NAV2D, {"attack.method": {"name": "observation_trigger"}, "attack.target": "class"})
    with pytest.raises(ConfigurationError, match="needs control"):
        load({}, {"attack.method": {"name": "reward_flip"}})
    with pytest.raises(ConfigurationError, match="serves"):
        _ = Workload(load(NAV2D, {"learner": {"name": "protonet"}})).learner
