"""The tables that end a bench on a terminal."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from server.words import counted
from simulations.bench.columns import COLUMNS, ROBUST, Column
from simulations.bench.questions import unanswered
from simulations.bench.report import BenchReport
from simulations.bench.summary import Row
from simulations.bench.words import difference_kind, in_print, p_in_print, with_interval

WIDE = 8
"""Of more defences than these a matrix is wider than a terminal: the worst attack of each is printed instead."""


def print_report(report: BenchReport, console: Console) -> None:
    """Matrices of every set-up, what breaks and restores, the grid's questions, and what did not run."""
    wide = len(report.plan.grid.defences) > WIDE
    for table in [worst_table(report)] if wide else matrices(report):
        console.print(table)
    for line in verdict_lines(report):
        console.print(line)
    if report.answers:
        console.print(answers_table(report))
    for line in missing_lines(report):
        console.print(line, style="red")


def matrices(report: BenchReport) -> Iterator[Table]:
    """Main task and headline lift, attacks by defences."""
    step = report.plan.grid.measure.step
    for setup in report.plan.grid.setups:
        for name in ("score", f"lift@{step}", ROBUST):
            rows = [row for row in report.rows if row.setup == setup.label]
            if any(name in row.intervals for row in rows):
                yield _matrix(report, setup.label, name)


def worst_table(report: BenchReport) -> Table:
    """What harms each defence most."""
    lift = f"lift@{report.plan.grid.measure.step}"
    table = Table(title="The worst attack of each defence (means over seeds)", title_justify="left")
    for title in ("set-up", "defence", "worst for the main task", report.score_name, "largest lift", lift):
        table.add_column(title, justify="right" if title in (report.score_name, lift) else "left")
    for found in report.worst:
        if found.by_score is not None:
            score = "diverged" if found.score is None else in_print("score", found.score, report.score_name)
            taken = in_print("points", found.lift, report.score_name)
            table.add_row(found.setup, found.defence, found.by_score, score, found.by_lift or "", taken)
    return table


def _matrix(report: BenchReport, setup: str, name: str) -> Table:
    column = next(column for column in COLUMNS if column.name == name.partition("@")[0])
    after = f" after {counted(int(name.partition('@')[2]), 'step')}" if "@" in name else ""
    title = ", ".join(filter(None, (setup, f"{column.title}{after}"))) + " (95 % over seeds)"
    table = Table(title=title, title_justify="left")
    table.add_column("attack")
    defences = [entry.label for entry in report.plan.grid.defences]
    for defence in defences:
        table.add_column(defence, justify="right")
    for attack in report.plan.grid.attacks:
        own = {row.defence: row for row in report.rows if (row.setup, row.attack) == (setup, attack.label)}
        cells = [_in_table(own[defence], column, name, report.score_name) for defence in defences]
        if any(cell != "-" for cell in cells):
            table.add_row(attack.label, *cells)
    return table


def _in_table(row: Row, column: Column, name: str, score_name: str) -> str:
    found = with_interval(column.kind, row.intervals.get(name), score_name)
    if not row.diverged or column.kind != "score":
        return found
    return "diverged" if found == "-" else f"{found}, {len(row.diverged)} diverged"


def verdict_lines(report: BenchReport) -> Iterator[str]:
    """Which attacks break the mean, and which defences restore it."""
    for found in report.verdicts:
        where = f"{found.setup}: " if found.setup else ""
        restored = ", ".join(found.restored) or "no defence here"
        broken = f"; it breaks {', '.join(found.broken)} too" if found.broken else ""
        yield f"{where}{found.attack} breaks {report.plan.undefended}; restored by {restored}{broken}"


def answers_table(report: BenchReport) -> Table:
    """The grid's questions, with interval and tests."""
    table = Table(title="Questions of the grid: first minus second, seed by seed", title_justify="left")
    for title in ("set-up", "first", "second", "column", "difference", "seeds", "p", "p (Holm)"):
        table.add_column(title, justify="left" if title in ("set-up", "first", "second", "column") else "right")
    for found in report.answers:
        table.add_row(
            found.setup,
            found.first,
            found.second,
            found.column,
            with_interval(difference_kind(found.column), found.difference, report.score_name),
            str(found.difference.seeds),
            p_in_print(found.p),
            p_in_print(found.adjusted),
        )
    return table


def missing_lines(report: BenchReport, shown: int = 10) -> Iterator[str]:
    """Cells that are refused or failed, alike ones in one line, and questions without an answer."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for outcome in report.outcomes:
        if outcome.state in ("failed", "refused"):
            grouped.setdefault((outcome.state, outcome.reason or ""), []).append(outcome.cell.words)
    for (state, reason), cells in grouped.items():
        more = f" and {len(cells) - shown} more" if len(cells) > shown else ""
        yield f"{state}: {'; '.join(cells[:shown])}{more}: {reason}"
    yield from unanswered(report)
