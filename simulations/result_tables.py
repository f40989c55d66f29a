"""A run's results as tables for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from fedmeta.estimates import Estimate
from fedmeta.statistics import Evaluation
from server.words import bounds, counted, share, why_unknown


def results_table(results: Mapping[str, Any]) -> Table:
    """The table that ends a run: a baseline, before and after adaptation, each with its 95 % interval."""
    from server.report import headline

    rows = headline(results)
    splits = list(dict.fromkeys(row.split for row in rows))
    table = Table(
        title="On clients never seen in training (95 % interval)",
        title_justify="left",
        caption=why_unknown(row.estimate for row in rows) or None,
        caption_justify="left",
    )
    table.add_column("")
    for split in splits:
        units = next(row.estimate for row in rows if row.split == split)
        table.add_column(f"{split}\n(over {counted(units.count, units.unit.removesuffix('s'))})", justify="right")
    for model, label in dict.fromkeys((row.model, row.label) for row in rows):
        name = label if model == "none" else f"{label}, {model}"
        found = {row.split: row for row in rows if (row.model, row.label) == (model, label)}
        table.add_row(name, *(_cell(found[split]) if split in found else "" for split in splits))
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
        table.add_row(words, *figures.values())
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


def _cell(row: Any) -> str:
    beside = f"\n[dim]{row.beside}[/]" if row.beside else ""
    interval = f" {bounds(row.estimate, row.format)}" if row.estimate.count else ""
    return f"[bold]{row.format(row.estimate.mean)}[/]{interval}{beside}"
