"""A run's results as tables for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from fedmeta.estimates import Estimate
from fedmeta.statistics import Evaluation
from server.words import bounds, counted, share, why_unknown

if TYPE_CHECKING:
    from server.report.headline import Row

LABEL = 25
"""Characters into which the names of a table's rows are folded where it is narrow."""


def results_table(results: Mapping[str, Any], width: int = 80) -> Table:
    """The table that ends a run: a baseline, before and after adaptation, each with its 95 % interval.

    Args:
        results: as in results.json.
        width: of the terminal [characters]; an interval stands beside its figure where all fit, else below it.
    """
    from server.report import headline

    rows = headline(results)
    splits = list(dict.fromkeys(row.split for row in rows))
    narrow = _width_of(rows, splits, beneath=False) > width
    table = Table(
        title="On clients never seen in training (95 % interval)",
        title_justify="left",
        caption=why_unknown(row.estimate for row in rows) or None,
        caption_justify="left",
    )
    table.add_column("", overflow="fold")
    for split in splits:
        units = next(row.estimate for row in rows if row.split == split)
        head = f"{_folded(split, rows, narrow)}\n(over {counted(units.count, units.unit.removesuffix('s'))})"
        table.add_column(head, justify="right", no_wrap=True)
    shown = ""
    for model, label in dict.fromkeys((row.model, row.label) for row in rows):
        if model != shown and model != "none":
            table.add_section()
            table.add_row(f"[dim]{model}[/]")
        shown = model
        found = {row.split: row for row in rows if (row.model, row.label) == (model, label)}
        table.add_row(label, *(_cell(found[split], narrow) if split in found else "" for split in splits))
    return table


def calibration_table(results: Mapping[str, Any]) -> Table | None:
    """How far the last model's probabilities can be believed after adaptation; None in regression."""
    from server.report.calibration import figures_in_words
    from server.report.headline import SPLITS

    judged = results.get("last") or {}
    found = [(words, Evaluation.from_json(judged[split])) for split, words in SPLITS.items() if judged.get(split)]
    rows = [(words, figures_in_words(evaluation)) for words, evaluation in found if evaluation.ece]
    if not rows:
        return None
    table = Table(title="Calibration after adaptation", title_justify="left", caption_justify="left")
    table.add_column("")
    for name in rows[0][1]:
        table.add_column(name, justify="right")
    for words, figures in rows:
        table.add_row(words, *(figure.replace(" (", "\n(") for figure in figures.values()))
    return table


def attack_table(results: Mapping[str, Any]) -> Table | None:
    """How often the attacker got the wanted answer, by adaptation steps; None where nothing was measured.

    On tasks across all test clients where there are such, else on each client's own.
    """
    from server.attack import in_words, persistence_in_words, successes

    found = successes(results)
    if not found:
        return None
    words, success = found[-1]
    table = Table(title=f"Attack success: {words} (95 % interval)", title_justify="left", caption_justify="left")
    table.add_column("adaptation steps")
    attacked = success.protocol["fraction"] > 0
    columns = [("attacked model" if attacked else "this model", success.rate)]
    columns += [(label, found) for label, found in (("clean model", success.clean), ("lift", success.lift)) if found]
    for label, _ in columns:
        table.add_column(label, justify="right")
    for row, steps in enumerate(success.steps):
        table.add_row(str(steps), *(_share(estimates[row]) for _, estimates in columns))
    hint = "" if success.lift or not attacked else ". Name a run without attackers in attack.clean for the lift over it"
    lasting = persistence_in_words(results.get("attack_persistence") or {})
    unknown = why_unknown(found for _, estimates in columns for found in estimates)
    table.caption = "; ".join(part for part in (in_words(success.protocol) + hint, lasting, unknown) if part)
    return table


def deployment_table(results: Mapping[str, Any]) -> Table | None:
    """What defences at deployment cost and save; None where the experiment names none."""
    from server.report.deployment import deployment_rows

    columns, rows = deployment_rows(results)
    if not rows:
        return None
    table = Table(title="Defences at deployment (95 % interval)", title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    return table


def detection_table(results: Mapping[str, Any]) -> Table | None:
    """How well the aggregator found the malicious clients; None where it neither scored nor accused anybody."""
    from fedmeta.detection.clients import Detection
    from server.detection import detection_rows

    if results.get("detection") is None:
        return None
    table = Table(title="Malicious clients found by the aggregator", title_justify="left", show_header=False)
    for what, figure, beside in detection_rows(Detection.from_json(results["detection"])):
        table.add_row(what, f"[bold]{figure}[/]", beside)
    return table


def _share(estimate: Estimate) -> str:
    return f"[bold]{share(estimate.mean)}[/] {bounds(estimate, share)}"


def _cell(row: Row, beneath: bool) -> str:
    """A figure, with its interval beside or beneath it, and what else the task measures."""
    interval = f"{chr(10) if beneath else ' '}{bounds(row.estimate, row.format)}" if row.estimate.count else ""
    beside = f"\n[dim]{row.beside}[/]" if row.beside else ""
    return f"[bold]{row.format(row.estimate.mean)}[/]{interval}{beside}"


def _widest(rows: Sequence[Row], beneath: bool) -> int:
    """Characters of the longest line in the cells of some rows."""
    return max(len(line) for row in rows for line in Text.from_markup(_cell(row, beneath)).plain.splitlines())


def _width_of(rows: Sequence[Row], splits: Sequence[str], beneath: bool) -> int:
    """Of the whole table, its first column folded to `LABEL` characters; a column has three for its rule and space."""
    widths = [LABEL, *(_widest([row for row in rows if row.split == split], beneath) for split in splits)]
    return sum(widths) + 3 * len(widths) + 1


def _folded(split: str, rows: Sequence[Row], beneath: bool) -> str:
    """The head of a column, no wider than its cells where those leave room for its words."""
    return textwrap.fill(split, max(18, _widest([row for row in rows if row.split == split], beneath)))
