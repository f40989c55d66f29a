"""`fedmeta tune` on a terminal: the progress, the table, what it cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from server.report.headline import format_score
from server.words import counted
from simulations.console import INTERRUPTED, log_to
from simulations.tune.report import BEST, TuneReport, failures, in_words
from simulations.tune.run import plan_search, play_search
from simulations.tune.study import Trial

SHOWN = 10
NOTHING_FOUND = 1


def run_tune(
    source: Path | Mapping[str, Any],
    search: Sequence[str],
    trials: int,
    out: Path | None,
    **options: Any,
) -> int:
    """Search behind a progress bar and print what was found; options as for `tune`.

    Returns:
        The exit code: 0; 1 when no trial was completed; 130 when interrupted.
    """
    console = Console()
    log_to(console)
    planned = plan_search(source, search, trials, out, **options)  # what cannot be is refused before there is a bar
    columns = (TextColumn("trial"), MofNCompleteColumn(), BarColumn(bar_width=20), TimeElapsedColumn())
    try:
        with Progress(*columns, TextColumn("{task.description}"), console=console) as progress:
            task = progress.add_task("starting", total=planned.wanted)

            def watch(trial: Trial) -> None:
                progress.console.print(_line(trial))
                progress.update(task, completed=trial.number + 1, description="")

            report = play_search(planned, watch)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on")
        return INTERRUPTED
    print_tuning(report, console)
    return NOTHING_FOUND if report.best is None and report.trials else 0


def _line(trial: Trial) -> str:
    if trial.state == "failed":
        return f"trial {trial.number} [red]failed[/]: {in_words(trial.chosen)}: {trial.reason}"
    score = "" if trial.value is None else f" {trial.value:.4g}"
    return f"trial {trial.number} {trial.state}{score}: {in_words(trial.chosen)}"


def print_tuning(report: TuneReport, console: Console) -> None:
    """The best trials, the shares of the keys, failures, and what tuning spent."""
    table = Table(title="Best trials, by their score on validation clients", title_justify="left")
    for name in ("trial", report.score_name, "round"):
        table.add_column(name, justify="right")
    keys = sorted({key for trial in report.trials for key in trial.chosen})
    for key in keys:
        table.add_column(key, justify="right")
    for trial in report.ranked[:SHOWN]:
        values = [trial.chosen.get(key) for key in keys]
        shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
        table.add_row(str(trial.number), format_score(report.score_name, trial.value or 0.0), str(trial.round), *shown)
    console.print(table)
    if report.importances:
        shares = ", ".join(f"{key} {100 * share:.0f} %" for key, share in report.importances.items())
        console.print(f"what made trials good (PED-ANOVA): {shares}")
    counts = ", ".join(f"{report.count(state)} {state}" for state in ("complete", "pruned", "failed"))
    console.print(f"{counted(len(report.trials), 'trial')}: {counts}")
    for line in failures(report.trials):
        console.print(f"[red]{line}[/]")
    if report.privacy is not None:
        console.print(privacy_in_words(report.privacy))
    if report.best is not None:
        console.print(f"the best experiment: fedmeta simulate {report.path / BEST}", soft_wrap=True)


def privacy_in_words(said: Mapping[str, Any]) -> str:
    """What tuning a private run has spent, as one line."""
    figures = ("epsilon", "one_run", "all_runs")
    shown = {key: "no bound" if said[key] is None else f"{said[key]:.3g}" for key in figures}
    return (
        f"{said['title'].lower()}: epsilon {shown['epsilon']} at delta {said['delta']:g} for one {said['unit']}, the "
        f"best of {counted(said['drawn'], 'trial')}, whose number was drawn ({said['law']}); one run "
        f"{shown['one_run']}, all of them published {shown['all_runs']}"
    )
