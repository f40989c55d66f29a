"""Columns read the records of a run, and say None where there is nothing to read."""

from dataclasses import replace
from typing import Any

import pytest

from fedmeta.attacks.success import AttackSuccess
from fedmeta.calibration import BINS
from fedmeta.component import Component
from fedmeta.estimates import Estimate
from fedmeta.experiment import Experiment
from fedmeta.statistics import ClientScores, summarise
from simulations.bench.columns import COLUMNS, column_names
from simulations.bench.facts import Facts, success_by_round


def estimates(*means: float) -> tuple[Estimate, ...]:
    return tuple(Estimate(mean, mean, mean, 4, "episodes") for mean in means)


def judged(score: float, rate: float, lift: float) -> dict[str, Any]:
    bins = [[0.0] * BINS for _ in range(3)]
    bins[0][13], bins[1][13], bins[2][13] = 10.0, 9.0, 7.0
    scores = {1: ClientScores([[2.0], [1.0]], [[0.2], [score]], brier=[[0.8], [0.4]], bins=[bins, bins])}
    evaluation = summarise("pooled", "accuracy", (0, 5), scores, {"test-steps": 5})
    clean = rate - lift
    success = AttackSuccess("pooled", (0, 5), estimates(0.9, rate), estimates(0.9, clean), estimates(0.0, lift), 4)
    return {"pooled": evaluation.to_json(), "attack": {"pooled": success.to_json()}}


@pytest.fixture
def facts() -> Facts:
    last, best = judged(0.6, 0.8, 0.55), judged(0.7, 0.3, 0.1)
    flags = {"recall": 0.75, "fpr": 0.1}
    detection = {
        "within": {"auroc": 0.9, "auprc": 0.8, "tpr_at_fpr": 0.0},
        "across": {"auroc": 0.85, "auprc": 0.7, "tpr_at_fpr": 0.6},
        "attacked": flags,
        "clean": None,
    }
    lasting = {"of": "lift", "steps": [0, 5], "area": [0.1, 0.4], "half_life": [None, 4]}
    results = {
        "last": {"round": 2, **last},
        "best": {"round": 1, **best},
        "detection": detection,
        "attack_persistence": lasting,
        "attack_idle_rounds": [2],
    }
    validation = judged(0.5, 0.4, 0.2)
    metrics = [
        {"round": 1, "attackers": [3, 4], "failed_round": False, "validation": validation["pooled"]},
        {"round": 2, "attackers": [3], "failed_round": True, "attack_success": validation["attack"]["pooled"]},
    ]
    experiment = Experiment().model_copy(
        update={"server": Experiment().server.model_copy(update={"aggregator": Component(name="krum", f=1)})}
    )
    reference = Facts(experiment, {"last": judged(0.9, 0.2, 0.0), "best": None}, [], "last", "pooled")
    return Facts(experiment, results, metrics, "last", "pooled", reference, robust=0.35)


EXPECTED = {
    "robust": 0.35,
    "score": 0.6,
    "drop": 0.3,
    "asr": 0.8,
    "lift": 0.55,
    "area": 0.4,
    "half_life": 4,
    "auroc": 0.9,
    "auprc": 0.8,
    "tpr_at_fpr": 0.6,
    "flagged": 0.75,
    "lost": 0.1,
    "false_alarms": None,
    "attackers": 1.5,
    "above_f": 0.5,
    "nll": 1.0,
    "brier": 0.4,
    "ece": 0.2,
    "idle": 1.0,
    "failed_rounds": 1.0,
}


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_each_column_by_hand(facts: Facts, column: Any) -> None:
    expected = EXPECTED[column.name]
    assert column.read(facts, 5) == (expected if expected is None else pytest.approx(expected))


def test_the_best_model_counts_where_the_grid_says_so(facts: Facts) -> None:
    best = replace(facts, checkpoint="best")
    values = {column.name: column.read(best, 5) for column in COLUMNS}
    assert (values["score"], values["asr"], values["lift"]) == pytest.approx((0.7, 0.3, 0.1))
    assert replace(facts.reference, checkpoint="best").score == 0.9  # nothing was chosen: the last one


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_nothing_measured_is_none_and_no_fault(column: Any) -> None:
    bare = Facts(Experiment(), {"last": {"pooled": None}, "best": None}, [], "last", "pooled")
    assert column.read(bare, 3) in (None, 0.0)


def test_names_are_different_and_curves_have_one_a_step() -> None:
    attacked = Experiment.model_validate({"attack": {"method": {"name": "badnets"}, "steps": (0, 7)}})
    names = [name for name, _, _ in column_names([Experiment(), attacked], headline=10)]
    assert len(set(names)) == len(names) and {"lift@0", "lift@7", "score"} <= set(names) and "lift@10" not in names


def test_success_is_followed_by_round(facts: Facts) -> None:
    assert success_by_round(facts, 5) == {2: pytest.approx(0.4)} and success_by_round(facts, 3) == {}
