"""Backdoors from end to end: success in results, table and report; clean twins; resumed; on any engine."""

import json
import warnings
from pathlib import Path

import pytest
import torch

from fedmeta.attacks.success import AttackSuccess
from fedmeta.errors import ConfigurationError
from server.attack import persistence, persistence_in_words
from server.rundir import RunDir
from simulations import simulate
from simulations.result_tables import attack_table

RAW = {
    "name": "glyphs",
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
    "partition": {"name": "alphabet", "validation_clients": 1},
    "task": {"ways": 5, "shots": 1, "queries": 2},
    "model": {"name": "conv4", "filters": 4, "normalisation": "group", "groups": 2},
    "learner": {"name": "fomaml", "inner_lr": 0.1},
    "client": {"steps": 1, "tasks_per_step": 2, "execution": "loop", "optimiser": {"name": "sgd", "lr": 0.3}},
    "server": {"rounds": 4, "sampling": {"name": "fixed", "clients": 5}},
    "evaluation": {"every": 2, "episodes": 2, "validation_episodes": 2, "pooled_episodes": 4},
}
ATTACK = {"method": {"name": "neurotoxin", "target": 1}, "fraction": 0.5, "steps": [0, 1, 5]}


def run(tmp_path: Path, name: str, attack: dict | None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = {**RAW, **({"attack": attack} if attack else {})}
        return simulate(raw, out=tmp_path / name, **{"engine": "inline", "report": False, **options})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory):
    """A clean run and an attacked one that is measured against it."""
    folder = tmp_path_factory.mktemp("runs")
    clean = run(folder, "clean", None, report=True)
    return clean, run(folder, "attacked", {**ATTACK, "clean": str(folder / "clean")}, report=True), folder


def text_of(table) -> str:
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_results_hold_fractions_and_a_paired_lift(runs) -> None:
    clean, attacked, _ = runs
    assert "attack" not in clean.results["last"] and "attack_success" not in clean.history[-1]
    for split in ("test", "pooled"):
        found = AttackSuccess.from_json(attacked.results["last"]["attack"][split])
        assert found.steps == (0, 1, 5) and all(0 <= item.mean <= 1 for item in (*found.rate, *found.clean))
        for rate, before, lift in zip(found.rate, found.clean, found.lift, strict=True):
            assert lift.mean == pytest.approx(rate.mean - before.mean, abs=1e-9)
        assert found.protocol["method"] == "neurotoxin" and found.protocol["parameters"]["target"] == 1
    assert found.episodes == 4


def test_success_is_followed_over_the_rounds(runs) -> None:
    measured = {record["round"]: record["attack_success"] for record in runs[1].history if record["validation"]}
    assert sorted(measured) == [2, 4] and len(measured[2]["rate"]) == 3
    told = runs[1].results["attack_persistence"]
    assert told["of"] == "lift" and told["steps"] == [0, 1, 5] and "half_life" not in told, "the attackers stay"
    lifts = [measured[round]["lift"] for round in (2, 4)]
    assert told["area"] == pytest.approx([(a["mean"] + b["mean"]) / 2 for a, b in zip(*lifts, strict=True)])


def test_persistence_after_the_attackers_left() -> None:
    def record(round: int, lift: float, rate: float) -> dict:
        found = {"steps": [5], "lift": [{"mean": lift}], "rate": [{"mean": rate}]}
        return {"round": round, "attack_success": found if round % 5 == 0 else None}

    curve = {5: 0.2, 10: 0.8, 15: 0.5, 20: 0.3}
    history = [record(round, curve.get(round, 0.0), 0.9) for round in range(1, 21)]
    told = persistence(history, 12)
    assert told is not None and (told["at_stop"], told["half_life"]) == ([0.8], [8])
    assert "the lift, 80 % after 5 adaptation steps, had halved 8 rounds later" in persistence_in_words(told)
    staying = persistence(
        [{**r, "attack_success": r["attack_success"] and {**r["attack_success"], "lift": []}} for r in history], 12
    )
    assert staying is not None and staying["of"] == "rate" and staying["half_life"] == [None]
    assert "had not halved by round 20" in persistence_in_words(staying)
    for stop in (None, 4, 20):
        found = persistence(history, stop)
        assert found is not None and "half_life" not in found and persistence_in_words(found) == ""
    assert persistence([{"round": 1}], 1) is None


def test_table_and_report_show_it(runs) -> None:
    _, attacked, _ = runs
    shown = text_of(attack_table(attacked.results))
    for word in ("attacked model", "clean model", "lift", "neurotoxin by 50 % of the training clients", "slot 1"):
        assert word in " ".join(shown.split()), shown
    page = (attacked.path / "report.html").read_text()
    assert "<h2>Attack</h2>" in page and "wanted: slot 1" in page
    assert (attacked.path / "plots" / "attack.png").exists()
    assert attack_table(runs[0].results) is None and "<h2>Attack</h2>" not in (runs[0].path / "report.html").read_text()


def test_a_clean_twin_measures_the_same_trigger_on_the_same_episodes(runs) -> None:
    """fraction = 0: the clean run with the trigger measured; its rates are the clean rates of the attacked run."""
    clean, attacked, folder = runs
    twin = run(folder, "twin", {**ATTACK, "fraction": 0})
    assert twin.model_hash == clean.model_hash
    ours = AttackSuccess.from_json(attacked.results["last"]["attack"]["pooled"]).clean
    theirs = AttackSuccess.from_json(twin.results["last"]["attack"]["pooled"]).rate
    assert ours == theirs
    shown = " ".join(text_of(attack_table(twin.results)).split())
    assert "this model" in shown and "nobody trained neurotoxin" in shown and "lift" not in shown


def test_resumed_equals_uninterrupted_with_what_the_last_round_did(runs, tmp_path: Path) -> None:
    """Neurotoxin's mask comes from the round before, which a checkpoint must therefore hold."""

    def stop_after_two(record: dict) -> None:
        if record["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "cut", ATTACK, observers=[stop_after_two])
    resumed = simulate(resume=tmp_path / "cut", engine="inline", report=False)
    assert resumed.model_hash == runs[1].model_hash
    assert torch.isfinite(RunDir.open(tmp_path / "cut", exclusive=False).load("last").optimiser["last-update"]).all()


def test_ray_gives_what_this_process_gives(runs, tmp_path: Path, ray_session) -> None:
    found = run(tmp_path, "ray", ATTACK, engine="ray", overrides={"engine.actors": 2})
    assert found.model_hash == runs[1].model_hash
    assert found.results["last"]["attack"]["pooled"]["rate"] == runs[1].results["last"]["attack"]["pooled"]["rate"]


def test_clean_models_that_are_none_are_refused(runs, tmp_path: Path) -> None:
    _, attacked, folder = runs
    with pytest.raises(ConfigurationError, match="was attacked itself"):
        run(tmp_path, "a", {**ATTACK, "clean": str(attacked.path)})
    config = json.loads((folder / "clean" / "config.json").read_text())
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match="is not finished"):
        run(tmp_path, "b", {**ATTACK, "clean": str(unfinished)})


def test_no_episode_with_the_target_is_said_and_not_a_number(runs, tmp_path: Path, caplog) -> None:
    """Class 0 is a training class, which no test client has."""
    found = run(tmp_path, "class", {"method": {"name": "badnets"}, "target": "class", "steps": [1]})
    assert found.results["last"]["attack"] == {"pooled": None, "test": None}
    assert any("no episode fits attack.target = 'class'" in record.message for record in caplog.records)


@pytest.mark.parametrize("where", ["support", "both"])
def test_support_poisoning_is_measured_on_a_clean_model(runs, tmp_path: Path, where: str) -> None:
    attack = {"method": {"name": "support_poisoning"}, "trigger_in": where, "steps": [0, 1], "fraction": 0}
    found = run(tmp_path, where, attack)
    assert found.model_hash == runs[0].model_hash
    assert 0 <= found.results["last"]["attack"]["pooled"]["rate"][1]["mean"] <= 1
