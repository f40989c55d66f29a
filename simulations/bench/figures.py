"""The curves of the page: success over adaptation steps, and score and success over the rounds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simulations.bench.outcome import Outcome
from simulations.bench.panels import Line, panel
from simulations.bench.report import BenchReport
from simulations.bench.summary import Row


def adaptation_figures(report: BenchReport, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For every attack with a trigger a panel of each defence: success after k steps, attacked and clean."""
    figures = []
    for attack in report.plan.grid.attacks:
        panels = []
        for row in (row for row in rows if row.attack == attack.label):
            rate, lift = _by_step(row, "asr"), _by_step(row, "lift")
            clean = {step: rate[step] - lift[step] for step in rate if step in lift}
            lines = [Line(clean, "muted"), Line(rate, "wrong")]
            svg = panel(lines, 1.0, f"attack success over steps: {row.attack} under {row.defence}", ordinal=True)
            panels += _shown(svg, row.defence)
        if panels:
            figures.append({"attack": attack.label, "panels": panels})
    return figures


def round_figures(report: BenchReport, setup: str) -> list[dict[str, Any]]:
    """For every attack a panel of each defence: single seeds faint, their mean on top."""
    share = report.score_name == "accuracy"
    bottom, top = (0.0, 1.0) if share else _ends(report.outcomes)
    figures = []
    for attack in report.plan.grid.attacks:
        panels = []
        for defence in report.plan.grid.defences:
            labels = (setup, attack.label, defence.label)
            own = [o for o in report.outcomes if (o.cell.setup, o.cell.attack, o.cell.defence) == labels]
            lines = [*_lines(own, "score", "accent"), *(_lines(own, "asr", "wrong") if share else [])]
            label = f"over the rounds: {attack.label} under {defence.label}"
            panels += _shown(panel(lines, top, label, bottom=bottom, percent=share), defence.label)
        if panels:
            figures.append({"attack": attack.label, "panels": panels})
    return figures


def _shown(svg: str, words: str) -> list[dict[str, Any]]:
    from markupsafe import Markup

    return [{"svg": Markup(svg), "words": words}] if svg else []


def _by_step(row: Row, name: str) -> dict[float, float]:
    found = {n.partition("@")[2]: interval.mean for n, interval in row.intervals.items() if n.startswith(f"{name}@")}
    return {float(step): mean for step, mean in found.items()}


def _lines(outcomes: Iterable[Outcome], name: str, colour: str) -> list[Line]:
    curves = [
        {float(round): value for round, value in outcome.curves[name].items()}
        for outcome in outcomes
        if outcome.curves.get(name)
    ]
    return [*(Line(curve, colour, faint=True) for curve in curves), Line(_mean(curves), colour)] if curves else []


def _mean(curves: Sequence[Mapping[float, float]]) -> dict[float, float]:
    """Over the rounds that all curves have."""
    common = set.intersection(*(set(curve) for curve in curves))
    return {round: sum(curve[round] for curve in curves) / len(curves) for round in sorted(common)}


def _ends(outcomes: Iterable[Outcome]) -> tuple[float, float]:
    """From 0 to twice the median of all points: an error that diverges must not flatten the others.

    Returns below 0 lie between twice their median and 0.
    """
    points = sorted(value for outcome in outcomes for value in outcome.curves.get("score", {}).values())
    median = points[len(points) // 2] if points else 0.0
    return (2 * median, 0.0) if median < 0 else (0.0, 2 * median or 1.0)
