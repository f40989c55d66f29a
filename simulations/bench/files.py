"""The files of a grid: CSV and JSON that hold no time and no place, so that a restarted bench writes the same bytes."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from server.files import store
from simulations.bench.columns import column_names
from simulations.bench.report import BenchReport

RESULTS_CSV, SUMMARY_CSV, RESULTS_JSON, PAGE = "results.csv", "summary.csv", "results.json", "report.html"


def write_files(report: BenchReport, out: Path) -> None:
    """Write `results.csv` (a line a cell), `summary.csv` (a line a combination) and `results.json` (all of it).

    Raises:
        FedmetaError: the directory cannot be written.
    """
    names = value_names(report)
    store(out / RESULTS_CSV, _csv(_cell_lines(report, names)))
    store(out / SUMMARY_CSV, _csv(_summary_lines(report, names)))
    store(out / RESULTS_JSON, (json.dumps(as_json(report), indent=1, allow_nan=False) + "\n").encode())


def value_names(report: BenchReport) -> list[str]:
    """Names of all columns, whether or not a cell has a value there: a file's head depends on the grid alone."""
    runs = [cell.experiment for cell in report.plan.runs if cell.experiment is not None]
    grid = report.plan.grid
    return [name for name, _, _ in column_names(runs, grid.measure.step, robust=grid.evasion is not None)]


def _cell_lines(report: BenchReport, names: Sequence[str]) -> list[list[Any]]:
    lines: list[list[Any]] = [["setup", "attack", "defence", "seed", "key", "state", *names, "reason"]]
    for outcome in report.outcomes:
        cell = outcome.cell
        values = [_number(outcome.values.get(name)) for name in names]
        lines.append(
            [cell.setup, cell.attack, cell.defence, cell.seed, cell.key, outcome.state, *values, outcome.reason or ""]
        )
    return lines


def _summary_lines(report: BenchReport, names: Sequence[str]) -> list[list[Any]]:
    lines: list[list[Any]] = [["setup", "attack", "defence", "column", "mean", "low", "high", "seeds"]]
    for row in report.rows:
        for name in names:
            if name in row.intervals:
                found = row.intervals[name]
                bounds = [_number(value) for value in (found.mean, found.low, found.high)]
                lines.append([row.setup, row.attack, row.defence, name, *bounds, found.seeds])
    return lines


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def _csv(lines: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def as_json(report: BenchReport) -> dict[str, Any]:
    """The whole result; the resolved configuration of a cell lies in `cells/KEY/config.json`."""
    grid = report.plan.grid
    return {
        "grid": grid.told,
        "code": report.plan.code,
        "score": report.score_name,
        "statements": list(report.statements),
        "notes": {text: list(where) for text, where in report.plan.notes.items()},
        "cells": [_cell(outcome) for outcome in report.outcomes],
        "summary": [
            {
                "setup": row.setup,
                "attack": row.attack,
                "defence": row.defence,
                "columns": {name: asdict(found) for name, found in row.intervals.items()},
            }
            for row in report.rows
        ],
        "against_mean": [asdict(found) for found in report.comparisons],
        "answers": [asdict(found) for found in report.answers],
        "worst": [asdict(found) for found in report.worst],
        "verdicts": [asdict(found) for found in report.verdicts],
    }


def _cell(outcome: Any) -> dict[str, Any]:
    cell = outcome.cell
    curves: Mapping[str, Mapping[int, float]] = outcome.curves
    return {
        "setup": cell.setup,
        "attack": cell.attack,
        "defence": cell.defence,
        "seed": cell.seed,
        "key": cell.key,
        "clean": cell.clean,
        "state": outcome.state,
        "reason": outcome.reason,
        "values": dict(outcome.values),
        "curves": {name: {str(round): value for round, value in curve.items()} for name, curve in curves.items()},
    }
