"""The page of a grid: one self-contained HTML file, without times, drawn from the report alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedmeta.paired import Interval
from server.files import store
from server.report.template import STYLE
from server.summary import in_one_line
from server.words import counted
from simulations.bench.columns import COLUMNS, ROBUST, Column
from simulations.bench.figures import adaptation_figures, round_figures
from simulations.bench.files import PAGE
from simulations.bench.page_template import COMPARISONS, TEMPLATE
from simulations.bench.report import BenchReport
from simulations.bench.summary import (
    BROKEN_DROP,
    BROKEN_LIFT,
    RESTORED_DROP,
    RESTORED_LIFT,
    Comparison,
    Row,
    break_lift,
)
from simulations.bench.table import missing_lines
from simulations.bench.words import difference_kind, in_print, p_in_print, with_interval


def write_page(report: BenchReport, out: Path) -> Path:
    """Draw the page into a grid's directory, and return its path.

    Raises:
        FedmetaError: the directory cannot be written.
    """
    store(out / PAGE, page_text(report).encode())
    return out / PAGE


def page_text(report: BenchReport) -> str:
    """The page as text."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    grid = report.plan.grid
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(COMPARISONS + TEMPLATE)
    base = next(cell.experiment for cell in report.plan.runs)
    assert base is not None
    return page.render(
        title=grid.name,
        style=Markup(STYLE),
        lead=_lead(report),
        facts=_facts(report),
        unfinished=counted(report.count("pending"), "cell") if report.count("pending") else "",
        statements=report.statements,
        bounds=_bounds(report),
        verdicts=_verdicts(report),
        answers=[_comparison(found, report) for found in report.answers],
        setups=[_setup(report, setup.label) for setup in grid.setups],
        score_name=report.score_name,
        step=grid.measure.step,
        comparisons=[_comparison(found, report) for found in report.comparisons],
        missing=list(missing_lines(report, shown=40)),
        notes=[
            (text, "; ".join(where[:6]) + (" ..." if len(where) > 6 else ""))
            for text, where in report.plan.notes.items()
        ],
        columns=[column for column in COLUMNS if column.name != ROBUST or grid.evasion is not None],
        cells=[{"words": o.cell.words, "state": o.state, "key": o.cell.key} for o in report.outcomes],
        grid=json.dumps(grid.told, indent=2),
        base=json.dumps(base.model_dump(mode="json"), indent=2),
    )


def _lead(report: BenchReport) -> str:
    grid = report.plan.grid
    base = next(cell.experiment for cell in report.plan.runs)
    assert base is not None
    setups = f"{len(grid.setups)} set-ups, " if len(grid.setups) > 1 else ""
    axes = (counted(len(grid.attacks), "attack"), counted(len(grid.defences), "defence"))
    return (
        f"{setups}{', '.join(axes)}, {counted(len(grid.seeds), 'seed')}: {in_one_line(base)}; "
        f"{counted(base.server.rounds, 'round')}, {base.server.sampling.name} sampling."
    )


def _facts(report: BenchReport) -> list[str]:
    states = [f"{report.count(state)} {state}" for state in ("done", "failed", "refused") if report.count(state)]
    measure, evasion = report.plan.grid.measure, report.plan.grid.evasion
    attacked = (
        []
        if evasion is None
        else [
            f"evasion: PGD, {counted(evasion.steps, 'step')}, {evasion.norm} eps {evasion.eps:g}, "
            f"{counted(evasion.episodes, 'episode')}"
        ]
    )
    return [
        counted(len(report.outcomes), "cell"),
        *states,
        f"judged on: {measure.split}",
        f"checkpoint: {measure.checkpoint}",
        *attacked,
    ]


def _bounds(report: BenchReport) -> str:
    lift = break_lift(report.rows, report.plan.grid.measure.step)
    return (
        f"An attack breaks the plain mean where the main task loses more than {100 * BROKEN_DROP:g} points against "
        "no attack, "
        f"or where its {lift} exceeds {100 * BROKEN_LIFT:g} points. A defence restores it where at most "
        f"{100 * RESTORED_DROP:g} "
        f"points of the main task and {100 * RESTORED_LIFT:g} points of lift are left. Means over seeds decide; see "
        "the tests below."
    )


def _verdicts(report: BenchReport) -> list[dict[str, str]] | None:
    if report.score_name != "accuracy":
        return None
    return [
        {
            "setup": found.setup,
            "attack": found.attack,
            "drop": in_print("points", found.drop, report.score_name),
            "lift": in_print("points", found.lift, report.score_name),
            "restored": ", ".join(found.restored) or "no defence here",
            "broken": ", ".join(found.broken),
        }
        for found in report.verdicts
    ]


def _setup(report: BenchReport, label: str) -> dict[str, Any]:
    rows = [row for row in report.rows if row.setup == label]
    return {
        "title": label or "Results",
        "maps": _maps(report, rows),
        "worst": [
            _worst(found, report) for found in report.worst if found.setup == label and found.by_score is not None
        ],
        "tables": [table for table in (_beside(report, rows),) if table is not None],
        "adaptation": adaptation_figures(report, rows),
        "rounds": round_figures(report, label),
    }


def _maps(report: BenchReport, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Heat maps of the columns that have a bad end, those over steps at the headline's number."""
    step = report.plan.grid.measure.step
    found = []
    for column in COLUMNS:
        name = f"{column.name}@{step}" if column.by_step else column.name
        if column.bad is None or column.name == "drop" or not any(name in row.intervals for row in rows):
            continue
        after = f" after {counted(step, 'step')}" if column.by_step else ""
        lines = [_map_line(report, rows, attack.label, column, name) for attack in report.plan.grid.attacks]
        found.append(
            {
                "title": _title(report, column) + after,
                "what": column.what,
                "defences": [entry.label for entry in report.plan.grid.defences],
                "lines": [
                    line for line in lines if any("mean" in cell for cell in line["cells"]) or column.name == "score"
                ],
            }
        )
    return found


def _title(report: BenchReport, column: Column) -> str:
    title = f"{column.title}, {report.score_name}" if column.kind == "score" else column.title
    return title[0].upper() + title[1:]


def _map_line(report: BenchReport, rows: Sequence[Row], attack: str, column: Column, name: str) -> dict[str, Any]:
    own = {row.defence: row for row in rows if row.attack == attack}
    cells: list[dict[str, Any]] = []
    for defence in report.plan.grid.defences:
        row = own[defence.label]
        interval = row.intervals.get(name)
        if interval is None:
            states = sorted(set(row.states.values()) - {"done"})
            absent = "diverged" if row.diverged and column.kind == "score" else "-"
            cells.append({"no": ", ".join(states) or absent, "why": _why(report, row)})
            continue
        mean, _, bounds = with_interval(column.kind, interval, report.score_name).partition(" [")
        missing = len(report.plan.grid.seeds) - interval.seeds
        range_ = f"[{bounds}" if bounds else "one seed"
        cells.append(
            {
                "no": "",
                "mean": mean,
                "range": range_ + (f", {counted(missing, 'seed')} missing" if missing else ""),
                "bad": round(70 * _badness(report, row, column, interval)),
            }
        )
    return {"attack": attack, "cells": cells}


def _why(report: BenchReport, row: Row) -> str:
    cells = (
        o
        for o in report.outcomes
        if (o.cell.setup, o.cell.attack, o.cell.defence) == (row.setup, row.attack, row.defence)
    )
    return "; ".join(dict.fromkeys(o.reason for o in cells if o.reason))


def _badness(report: BenchReport, row: Row, column: Column, interval: Interval) -> float:
    """How red a field is, in [0, 1]: scores by what they lost of the unattacked mean's, others by their own size."""
    if column.kind == "score":
        drop, unit = row.mean("drop") or 0.0, 0.5
        if report.score_name != "accuracy":
            unit = max(abs(interval.mean - drop), 1e-12)
        return min(1.0, max(0.0, drop / unit))
    value = interval.mean if column.bad == "high" else 1.0 - interval.mean
    return min(1.0, max(0.0, value))


def _worst(found: Any, report: BenchReport) -> dict[str, str]:
    return {
        "defence": found.defence,
        "by_score": found.by_score or "",
        "score": "diverged" if found.score is None else in_print("score", found.score, report.score_name),
        "by_lift": found.by_lift or "",
        "lift": in_print("points", found.lift, report.score_name) if found.by_lift else "",
    }


def _beside(report: BenchReport, rows: Sequence[Row]) -> dict[str, Any] | None:
    """All other columns, one line a combination."""
    step = report.plan.grid.measure.step
    names = [(c, f"{c.name}@{step}" if c.by_step else c.name) for c in COLUMNS if c.bad is None]
    names = [(column, name) for column, name in names if any(name in row.intervals for row in rows)]
    lines = [
        [row.attack, row.defence]
        + [
            in_print(column.kind, None if name not in row.intervals else row.intervals[name].mean, report.score_name)
            for column, name in names
        ]
        for row in rows
        if row.intervals
    ]
    heads = ["attack", "defence", *(column.title for column, _ in names)]
    return {"title": "Beside the matrices", "note": "", "heads": heads, "lines": lines} if names else None


def _comparison(found: Comparison, report: BenchReport) -> dict[str, str]:
    return {
        "setup": found.setup,
        "first": found.first,
        "second": found.second,
        "family": found.family,
        "difference": with_interval(difference_kind(found.column), found.difference, report.score_name),
        "seeds": str(found.difference.seeds),
        "p": p_in_print(found.p),
        "adjusted": p_in_print(found.adjusted),
    }
