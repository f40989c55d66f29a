"""Detection of malicious clients in a run: in its records, its results, its table and its report."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from fedmeta.detection.clients import Detection
from fedmeta.detection.ranking import auroc
from server.detection import detection_of_run, judged_round
from simulations import simulate
from simulations.result_tables import detection_table

SMALL: dict[str, Any] = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 8, "validation_clients": 0, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 3},
    "model": {"name": "sinusoid"},
    "learner": {"name": "maml", "inner_lr": 0.01},
    "client": {"steps": 1, "tasks_per_step": 1, "execution": "loop"},
    "server": {"rounds": 4, "sampling": {"name": "fixed", "clients": 8}, "aggregator": {"name": "multi_krum", "f": 2}},
    "attack": {"method": {"name": "sign_flip", "scale": 30.0}, "fraction": 0.25, "start": 2, "stop": 3},
    "evaluation": {"episodes": 2, "pooled_episodes": 2},
}


def run(folder: Path, report: bool = False, **changes: Any):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return simulate({**SMALL, **changes}, engine="inline", out=folder, report=report)


def test_records_results_table_and_report(tmp_path: Path) -> None:
    """Multi-Krum drops f = 2 of 8 in every round: all attackers in rounds 2 and 3, two honest ones in 1 and 4."""
    result = run(tmp_path / "run", report=True)
    assert [len(record["attackers"]) for record in result.history] == [0, 2, 2, 0]
    for record in result.history:
        scores, bad = record["defence"]["scores"], {str(client) for client in record["attackers"]}
        assert record["detection"]["fpr"] == (0.0 if bad else 0.25)
        if bad:
            expected = auroc(list(scores.values()), [client in bad for client in scores])
            assert record["detection"]["auroc"] == expected == 1.0 == record["detection"]["recall"]
    stored = json.loads((tmp_path / "run" / "results.json").read_text())["detection"]
    found = Detection.from_json(stored)
    assert (found.attacked_rounds, found.clean_rounds, found.share) == (2, 2, 0.25)
    assert found.within is not None and found.within.auroc == 1.0
    assert found.attacked is not None and found.attacked.precision == found.attacked.recall == 1.0
    assert found.clean is not None and found.clean.fpr == 0.25
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as captured:
        console.print(detection_table(result.results))
    page = (tmp_path / "run" / "report.html").read_text()
    for text in (captured.get(), page):
        assert "AUROC" in text and "honest updates flagged, attack-free rounds" in text and "4 of 16" in text
    assert "Who looked suspicious" in page


@pytest.mark.parametrize("aggregator", ["geometric_median", "median"])
def test_a_rule_that_accuses_nobody_has_no_flags(tmp_path: Path, aggregator: str) -> None:
    result = run(tmp_path / "run", server={**SMALL["server"], "aggregator": {"name": aggregator}})
    assert all(record["defence"]["flagged"] is None for record in result.history)
    if aggregator == "median":
        assert "detection" not in result.results and detection_table(result.results) is None
        return
    found = Detection.from_json(result.results["detection"])
    assert found.attacked is found.clean is None and found.within is not None and found.within.auroc == 1.0


def test_a_run_without_attack_has_its_false_alarms_only(tmp_path: Path) -> None:
    result = run(tmp_path / "run", attack={"method": {"name": "none"}})
    found = Detection.from_json(result.results["detection"])
    assert found.within is found.attacked is None and found.clean is not None and found.clean.fpr == 0.25


def test_under_secure_aggregation_groups_are_judged() -> None:
    """Two attackers make one group of three malicious, known by its place; nothing is said of single clients."""
    record = {
        "round": 1,
        "sampled": [1, 2, 3, 4, 5, 6],
        "attackers": [3, 4],
        "failed": {},
        "refused": {},
        "groups": [{"clients": [1, 6]}, {"clients": [3, 4]}, {"clients": [2, 5]}],
        "defence": {
            "flagged": [],
            "scores": {},
            "groups": {"flagged": [1, 2], "scores": {"0": 1.0, "1": 9.0, "2": 2.0}, "weights": {}},
        },
    }
    found = detection_of_run([record])
    assert found is not None and found.within is not None and found.within.auroc == 1.0
    assert found.share == pytest.approx(1 / 3) and found.attacked is not None
    assert (found.attacked.caught, found.attacked.missed, found.attacked.lost, found.attacked.kept) == (1, 0, 1, 1)


def test_who_was_refused_or_sent_an_honest_update_is_not_taken_for_a_catch() -> None:
    record = {
        "round": 1,
        "sampled": [1, 2, 3, 4, 5],
        "attackers": [1, 2, 3],
        "attack_idle": {"3": "nobody to imitate"},
        "failed": {"4": "gone"},
        "refused": {"2": "NaN"},
        "defence": {"flagged": [1, 3], "scores": {"1": 3.0, "3": 2.0, "5": 1.0}, "weights": {}, "diagnostics": {}},
    }
    judged = judged_round(record)
    assert judged.clients == (1, 3, 5) and judged.attackers & set(judged.clients) == {1}
    found = detection_of_run([record, {**record, "defence": {}}])
    assert found is not None and found.attacked_rounds == 1, "a round that was not aggregated does not count"
    assert found.attacked is not None and (found.attacked.caught, found.attacked.lost, found.attacked.kept) == (1, 1, 1)
