"""Intervals against scipy, and what counts as independent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedmeta.estimates import Estimate, estimate, within
from fedmeta.statistics import ClientScores, Evaluation, summarise
from server.files import finite
from server.report import headline


@given(st.lists(st.floats(0, 1), min_size=2, max_size=50))
def test_interval_is_students(values: list[float]) -> None:
    found = estimate(values, "episodes")
    if min(values) == max(values):
        assert not found.known
        return
    scale = max(stats.sem(values), 1e-300)
    expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=scale)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("values", [[0.3], [1.0], [0.3, 0.3, 0.3], [np.nan, 0.5]])
def test_values_without_spread_have_no_interval(values: list[float]) -> None:
    found = within(estimate(values, "clients"), 0.0, 1.0)
    assert not found.known and found.count == len(values)
    told = found.to_json()
    assert told["low"] is None and told["high"] is None
    back = Estimate.from_json(told)
    assert not back.known and back.mean == pytest.approx(found.mean, nan_ok=True)
    assert not Estimate.from_json({**told, "low": 0.3, "high": 0.3}).known, "files from before have no width instead"


@pytest.mark.parametrize(("value", "bounds"), [(0.0, (0.0, 1.0)), (1.0, (0.0, 1.0)), (-1.0, (-1.0, 1.0))])
def test_values_all_at_an_end_have_an_exact_interval(value: float, bounds: tuple[float, float]) -> None:
    """Clopper and Pearson's, of no hit in n, in the units of the values."""
    low, high = bounds
    found = within(estimate([value] * 7, "episodes"), low, high)
    exact = stats.binomtest(0, 7).proportion_ci(method="exact").high * (high - low)
    expected = (value, value + exact) if value == low else (value - exact, value)
    assert (found.low, found.high) == pytest.approx(expected)
    assert not within(estimate([0.0] * 7, "episodes"), 0.0, np.inf).known, "an error has no upper end"


def test_no_value_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        estimate([], "clients")


def test_clients_are_the_units_where_there_are_several() -> None:
    scores = {
        7: ClientScores(loss=[[1.0, 3.0], [0.0, 0.0]], score=[[0.2, 0.2], [0.4, 0.6]]),
        2: ClientScores(loss=[[2.0], [0.0]], score=[[0.0], [1.0]]),
    }
    found = summarise("test", "accuracy", (0, 5), scores, {"ways": 5})
    assert found.after.mean == pytest.approx(0.75) and found.after.unit == "clients" and found.after.count == 2
    assert found.loss[0].mean == pytest.approx(2.0)
    assert found.clients == {"2": 1.0, "7": 0.5}
    assert found.quantiles["0"] == 0.5 and found.quantiles["1"] == 1.0
    assert found.baseline is None
    assert Evaluation.from_json(found.to_json()) == found


def test_intervals_lie_where_values_can() -> None:
    """Student's interval of few, uneven values reaches below 0: no Brier score, loss or error is there."""
    bins = [np.zeros((3, 15)).tolist()]
    scores = {
        client: ClientScores(loss=[[value]], score=[[value / 3]], brier=[[value]], bins=bins)
        for client, value in enumerate((0.0, 0.0, 2.0))
    }
    found = summarise("test", "accuracy", (0,), scores, {})
    assert estimate([0.0, 0.0, 2.0], "clients").low < 0 and estimate([0.0, 0.0, 2.0], "clients").high > 2
    assert (found.brier[0].low, found.brier[0].high) == (0.0, 2.0) and found.loss[0].low == 0.0
    assert (found.after.low, found.after.high) == (0.0, 1.0)
    errors = {client: ClientScores(loss=item.loss, score=item.score) for client, item in scores.items()}
    assert summarise("test", "mae", (0,), errors, {}).after.low == 0.0
    assert summarise("test", "return", (0,), errors, {}).after.low < 0, "a return may be anything"
    diverged = {0: ClientScores(loss=[[np.nan]], score=[[0.5]]), 1: ClientScores(loss=[[1.0]], score=[[0.5]])}
    assert np.isnan(summarise("test", "accuracy", (0,), diverged, {}).loss[0].low), "no bound hides a NaN"


def test_one_client_is_judged_over_its_episodes() -> None:
    scores = {3: ClientScores(loss=[[1.0, 0.0]], score=[[0.5, 0.7]], baselines={"pixels": {"accuracy": [0.1, 0.3]}})}
    found = summarise("pooled", "accuracy", (1,), scores, {})
    assert found.after.unit == "episodes" and found.after.count == 2
    assert found.baseline is not None and found.baseline.mean == pytest.approx(0.2)


def test_a_baseline_without_a_score_somewhere_says_on_how_many() -> None:
    """It neither goes from the table nor counts what is not there; and among baselines the whole ones are compared."""

    def told(**baselines: list[float]) -> ClientScores:
        return ClientScores([[1.0, 1.0]], [[0.5, 0.5]], {name: {"accuracy": row} for name, row in baselines.items()})

    nan = float("nan")
    scores = {
        0: told(whole=[0.2, 0.4], part=[0.9, 0.9], never=[nan, nan]),
        1: told(whole=[0.4, 0.4], part=[nan, nan]),
        2: told(whole=[0.6, 0.6], part=[nan, 0.7], never=[nan, nan]),
    }
    found = summarise("test", "accuracy", (0,), scores, {})
    part, never = found.baselines["part"]["accuracy"], found.baselines["never"]["accuracy"]
    assert (part.mean, part.count) == (pytest.approx(0.8), 2) and never.count == 0 and np.isnan(never.mean)
    assert found.baseline == found.baselines["whole"]["accuracy"] and found.baseline.count == 3
    rows = headline({"last": {"round": 1, "test": finite(found.to_json())}})
    assert [row.label for row in rows[:3]] == ["whole", "part, on 2 of 3 clients", "never, on 0 of 3 clients"]
    assert rows[2].format(rows[2].estimate.mean) == "none"
    alone = summarise("pooled", "accuracy", (0,), {5: scores[2]}, {})
    assert alone.baselines["part"]["accuracy"].count == 1 and alone.baseline == alone.baselines["whole"]["accuracy"]


@pytest.mark.parametrize("clients", [1, 6])
@pytest.mark.parametrize("score_name", ["mae", "accuracy"])
def test_the_lead_is_over_the_strongest_baseline_and_paired(clients: int, score_name: str) -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.3, 0.5, (clients, 8))  # hard for all alike
    weak, strong = (hard + 0.2, hard + 0.1) if score_name == "mae" else (hard + 0.1, hard + 0.2)
    own = strong + rng.normal(0.02, 0.01, (clients, 8))
    scores = {
        i: ClientScores(
            loss=[[0.0] * 8] * 2,
            score=[[0.0] * 8, own[i].tolist()],
            baselines={"weak": {score_name: weak[i].tolist()}, "strong": {score_name: strong[i].tolist()}},
        )
        for i in range(clients)
    }
    found = summarise("test", score_name, (0, 5), scores, {"test-steps": 5})
    differences = (own - strong).mean(axis=1) if clients > 1 else (own - strong)[0]
    expected = stats.t.interval(0.95, len(differences) - 1, loc=differences.mean(), scale=stats.sem(differences))
    assert found.strongest == "strong" and found.lead is not None and found.lead.count == len(differences)
    assert (found.lead.low, found.lead.high) == pytest.approx(expected)
    assert found.lead.high - found.lead.low < (found.after.high - found.after.low) / 2
    assert Evaluation.from_json(found.to_json()) == found
    before = {key: value for key, value in found.to_json().items() if key != "lead"}
    assert Evaluation.from_json(before).lead is None, "a file from before"
