"""The tables that end a run, on terminals of any width."""

import io
from typing import Any

import pytest
from rich.console import Console

from fedmeta.estimates import Estimate
from fedmeta.statistics import Evaluation
from simulations.result_tables import calibration_table, results_table

NEIGHBOUR = "pixel nearest neighbour"


def results(score: str, baseline: str = NEIGHBOUR, rounds: tuple[int, int] = (100, 100)) -> dict[str, Any]:
    """Of a run whose figures are as long as they come."""

    def estimate(mean: float, unit: str) -> Estimate:
        return Estimate(mean, mean - 0.01234, mean + 0.01234, 600, unit)

    def judged(unit: str) -> dict[str, Any]:
        own = {"loss": (estimate(0.6, unit),) * 2, "score": (estimate(0.2, unit), estimate(0.7123, unit))}
        return Evaluation(
            split="test",
            steps=(0, 5),
            adapted=5,
            quantiles={},
            clients={},
            score_name=score,
            baselines={baseline: {score: estimate(0.6789, unit)}},
            lead=estimate(0.09295, unit),
            brier=(estimate(0.3, unit),) * 2,
            ece=(0.05, 0.04),
            **own,
        ).to_json()

    last, best = ({"round": number, "test": judged("clients"), "pooled": judged("episodes")} for number in rounds)
    return {"last": last, "best": best}


def printed(table: Any, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("score", ["accuracy", "mse"])
@pytest.mark.parametrize("rounds", [(100, 100), (100, 80)])
def test_no_figure_is_broken_and_no_word_cut(width: int, score: str, rounds: tuple[int, int]) -> None:
    found = results(score, "item mean + shrunk user offset", rounds)
    lines = printed(results_table(found, width), width)
    lead = ("+9.3 points", "(+8.1 to +10.5)") if score == "accuracy" else ("+0.09295", "(+0.08061 to +0.1053)")
    for part in lead:
        assert sum(line.count(part) for line in lines) == 2 * len(set(rounds)), "whole, in one line"
    figures = [line.split("│", 2)[-1] for line in lines]
    assert all(line.count("(") == line.count(")") for line in figures)
    assert "…" not in "".join(lines) and max(map(len, lines)) <= width
    if width >= 80:
        assert any("last and best (round 100)" in line for line in lines) == (rounds[0] == rounds[1])


def test_an_interval_stands_beside_its_figure_where_there_is_room() -> None:
    wide, narrow = (printed(results_table(results("accuracy"), width), width) for width in (120, 80))
    assert any("71.2 % (70.0 to 72.5)" in line for line in wide)
    assert len(narrow) > len(wide)


def test_calibration_keeps_its_intervals_whole() -> None:
    lines = printed(calibration_table(results("accuracy")), 80)
    assert all(line.count("(") == line.count(")") for line in lines) and any(
        "(0.588 to 0.612)" in line for line in lines
    )
