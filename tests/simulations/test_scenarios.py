"""Scenarios beyond images: one attack, defence and privacy for all, baselines in the table, attacks of their own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmeta.attacks.push_item import PushItem
from fedmeta.data import from_arrays
from fedmeta.statistics import Evaluation
from server.report import headline
from simulations import simulate


def made_texts(folder: Path) -> str:
    """Three families of three languages with syllables of their own, 10 paragraphs each."""
    texts = {}
    for seed, code in enumerate(["spa", "fra", "ita", "deu", "swe", "dan", "quz", "qul", "quy"]):
        rng = np.random.default_rng(seed)
        syllables = ["".join(rng.choice(list("abcdefghij"), 3)) for _ in range(6)]
        texts[code] = [f"{' '.join(rng.choice(syllables, 12))} {i}" for i in range(10)]
    place = folder / "texts.json"
    place.write_text(json.dumps(texts))
    return str(place)


def text(folder: Path) -> dict[str, Any]:
    return {
        "data": {"name": "udhr", "path": made_texts(folder), "min_paragraphs": 5, "characters": 12},
        "partition": {"name": "group"},
        "task": {"ways": 2, "shots": 1, "queries": 2},
        "model": {"name": "text", "embedding": 4, "channels": 8, "layers": 1},
        "learner": {"name": "protonet"},
    }


def ratings(folder: Path) -> dict[str, Any]:
    return {
        "data": {"name": "ratings", "users": 12, "each": 24, "items": 40},
        "partition": {"name": "column", "column": "user", "validation_clients": 0},
        "task": {"ways": 1, "shots": 10, "queries": 8},
        "model": {"name": "items", "embedding": 3, "hidden": [6]},
        "learner": {"name": "anil", "inner_lr": 0.1, "inner_steps": 2},
    }


def nav2d(folder: Path) -> dict[str, Any]:
    return {
        "data": {"name": "nav2d"},
        "partition": {"name": "iid", "clients": 6, "test_clients": 2, "validation_clients": 0},
        "task": {"ways": 1, "shots": 4, "queries": 4},
        "model": {"name": "policy", "hidden": [8]},
        "learner": {"name": "fomaml", "inner_lr": 0.05, "inner_steps": 1},
    }


SCENARIOS = {"text": text, "ratings": ratings, "nav2d": nav2d}

COMMON = {
    "client": {"steps": 1, "tasks_per_step": 2, "optimiser": {"name": "sgd", "lr": 0.1}},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 20}, "min_success_fraction": 0.1},
    "evaluation": {"episodes": 2, "pooled_episodes": 3},
}
"""The same for every scenario; a round takes all clients there are."""

DEFENDED = {"server.aggregator.name": "median", "server.min_success_fraction": 0.5}
LOCAL_DP = {
    "privacy.unit": "client",
    "privacy.placement": "local",
    "privacy.clip_norm": 0.5,
    "privacy.noise_multiplier": 0.1,
    "privacy.delta": 1e-3,
}


def run(raw: dict[str, Any], folder: Path, name: str, engine: str = "inline", report: bool = False, **overrides: Any):
    named = {**COMMON, **raw, "name": name}
    return simulate(named, engine=engine, out=folder / name, overrides=overrides, report=report)


@pytest.mark.parametrize("attack", [{"name": "sign_flip"}, {"name": "gaussian", "std": 0.5}], ids=lambda a: a["name"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_one_attack_defence_and_privacy_serves_all_scenarios(scenario: str, attack: dict, tmp_path: Path) -> None:
    raw = SCENARIOS[scenario](tmp_path)
    result = run(
        raw,
        tmp_path,
        "attacked",
        **DEFENDED,
        **LOCAL_DP,
        **{"attack.method": attack, "attack.fraction": 0.5, "server.sampling.clients": 2},
    )
    rounds = [json.loads(line) for line in (tmp_path / "attacked" / "metrics.jsonl").read_text().splitlines()]
    assert len(rounds) == 2 and all(not record["failed"] and not record["failed_round"] for record in rounds)
    assert any(record["attackers"] for record in rounds)
    assert np.isfinite(result.results["last"]["pooled"]["score"][-1]["mean"])
    assert result.results["privacy"]["epsilon"] > 0


def test_baselines_and_measures_stand_in_the_same_table(tmp_path: Path) -> None:
    words = {
        "text": ["character-trigram neighbour"],
        "ratings": ["global mean", "shrunk item mean", "item mean + shrunk user offset"],
    }
    for scenario, names in words.items():
        result = run(SCENARIOS[scenario](tmp_path), tmp_path, scenario, report=True, **{"server.sampling.clients": 2})
        rows = [row for row in headline(result.results) if row.split.startswith("tasks across")]
        assert [row.label for row in rows][: len(names)] == names
        assert rows[-2].label.startswith("after adaptation") and rows[-1].score_name == rows[0].score_name
        page = (tmp_path / scenario / "report.html").read_text(encoding="utf-8")
        assert all(name in page for name in names)
        assert ("nDCG@10 0." in page) == (scenario == "ratings")
    found = Evaluation.from_json(result.results["last"]["pooled"])
    scores = [figures["mae"].mean for figures in found.baselines.values()]
    assert found.score_name == "mae" and found.baseline.mean == min(scores), "of errors the least is the best"
    assert found.measures["nDCG@10"][-1].mean <= 1 and set(found.baselines["global mean"]) == {"mae", "nDCG@10"}
    assert found.lead is not None and found.lead.mean == pytest.approx(found.after.mean - found.baseline.mean)
    assert rows[-1].signed and rows[-1].label == f"paired lead over {found.strongest}"
    assert Evaluation.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_trigger_word_and_fake_users(tmp_path: Path) -> None:
    word = {"attack.method.name": "badnets", "attack.method.trigger": "own", "attack.fraction": 0.5}
    result = run(text(tmp_path), tmp_path, "word", **word, **{"attack.steps": [1], "server.sampling.clients": 2})
    [rate] = result.results["last"]["attack"]["pooled"]["rate"]
    assert 0 <= rate["mean"] <= 1
    push = {"attack.method.name": "push_item", "attack.method.item": 199, "attack.fraction": 0.9, "server.rounds": 5}
    push |= {"server.sampling.clients": 10, "data.each": 60, "data.items": 200, "evaluation.queries": 100}
    pushed, clean = (
        run(
            ratings(tmp_path),
            tmp_path,
            name,
            **{**push, **extra, "attack.steps": [0], "client.optimiser.lr": 1.0, "evaluation.pooled_episodes": 12},
        )
        for name, extra in (("pushed", {"client.steps": 1}), ("clean", {"attack.fraction": 0.0, "client.steps": 1}))
    )
    hits = [run.results["last"]["attack"]["pooled"]["rate"][0]["mean"] for run in (pushed, clean)]
    assert hits[0] > hits[1], "with nine fake users in ten the item climbs"


def test_a_pushed_film_has_its_number_and_no_genre() -> None:
    pushed = PushItem(item=3).whole_trigger(None)(torch.tensor([[7, 1, 0], [2, 0, 1]]))
    assert pushed.tolist() == [[3, 0, 0], [3, 0, 0]]


def test_own_data_run_alike_on_both_engines(tmp_path: Path, ray_session: None) -> None:
    rng = np.random.default_rng(0)
    labels, owners = np.repeat(np.arange(8), 30), np.tile(np.arange(5), 48)
    images = (rng.integers(0, 256, (8, 4, 4))[labels] // 2 + rng.integers(0, 128, (240, 4, 4))).astype(np.uint8)
    data = from_arrays(images, labels, owners, test_share=0.4)
    raw = {
        **COMMON,
        "partition": {"name": "column", "min_examples": 3},
        "task": {"ways": 2, "shots": 1, "queries": 2},
        "model": {"name": "mlp", "hidden": [6]},
        "client": {**COMMON["client"], "execution": "loop"},
    }
    raw["server"] = {**COMMON["server"], "sampling": {"name": "fixed", "clients": 3}}
    runs = [
        simulate(raw, data=data, engine=engine, out=tmp_path / engine, report=False) for engine in ("inline", "ray")
    ]
    hashes = {found.results["model_hash"] for found in runs}
    assert len(hashes) == 1
    assert json.loads((tmp_path / "ray" / "config.json").read_text())["data"]["name"] == "given"
