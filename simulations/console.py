"""What the command shows: the progress of a run, its table of results, and the registries."""

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from fedmeta.errors import ConfigurationError, did_you_mean
from fedmeta.registry import Registry
from fedmeta.statistics import SCORES, Evaluation
from server.callbacks import Callback
from server.words import counted
from simulations.result_tables import attack_table, calibration_table, deployment_table, detection_table, results_table

if TYPE_CHECKING:
    from server.rounds import RunResult
    from simulations.doctor import Diagnosis

INTERRUPTED = 130
FAILED_ROUNDS = 1


def run_with_progress(
    source: Any,
    *,
    engine: str,
    overrides: Mapping[str, Any],
    out: Path | None,
    resume: Path | None,
    report: bool = True,
) -> int:
    """Run a simulation behind a progress bar and print its results.

    Returns:
        The exit code: 0; 1 when a round wanted valid updates, or its step diverged; 130 when interrupted.
    """
    console = Console()
    log_to(console)
    from simulations.launch import Opened, check_engine, open_run, play

    check_engine(engine)
    opened: Opened = open_run(source, overrides, out, resume)
    bar = _Bar(console, opened.experiment.server.rounds, f"[bold]{opened.experiment.name}[/]: {_in_words(opened)}")
    try:
        with bar:
            result = play(opened, engine, draw=report, callbacks=[bar])
    except KeyboardInterrupt:
        console.print(f"interrupted; continue with: fedmeta simulate --resume {opened.rundir.path}", soft_wrap=True)
        return INTERRUPTED
    print_results(console, result)
    page = result.path / "report.html"
    console.print(f"report: {page}" if report and page.exists() else f"run directory: {result.path}", soft_wrap=True)
    if result.failed_rounds:
        console.print(
            f"[red]{len(result.failed_rounds)} of {counted(result.rounds, 'round')} did not go well: "
            "the report lists why[/]"
        )
        return FAILED_ROUNDS
    return 0


def print_results(console: Console, result: "RunResult") -> None:
    """A run's tables and sentences: what it reached, at what price, and who was suspected."""
    from server.privacy import in_one_line
    from server.secure_aggregation import in_words as learned_in_words

    results = result.results
    console.print(results_table(results, console.width))
    for table in (calibration_table, attack_table, deployment_table, detection_table):
        found = table(results)
        if found is not None:
            console.print(found)
    if results.get("privacy"):
        console.print(in_one_line(results["privacy"]))
    if results.get("secagg"):
        console.print(learned_in_words(results["secagg"]))
    for settled in results.get("configurations", ()):
        keys = ", ".join(f"{key} = {value}" for key, value in settled["configuration"].items())
        console.print(f"configuration {keys}: probability {settled['probability']:.3f}")
    if results.get("stopped") and not (results.get("privacy") or {}).get("stopped"):
        console.print(f"ended after round {result.rounds}: {results['stopped']}")


def log_to(console: Console) -> None:
    """What is logged and warned of goes to a console, each warning once and in its own words alone."""
    handler = RichHandler(console=console, show_path=False, show_time=False, markup=False)
    log = logging.getLogger("fedmeta")
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    # A user needs the words of a warning, not the line of ours that said it.
    said: set[str] = set()

    def say(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in said:  # an experiment is checked more than once on its way
            said.add(str(message))
            log.warning("%s", message)

    warnings.showwarning = say
    # What is said to users is a UserWarning; deprecations and unclosed files are for developers.
    warnings.simplefilter("ignore")
    warnings.simplefilter("default", UserWarning)


def _in_words(opened: Any) -> str:
    from server.summary import in_one_line

    rounds, rundir = opened.experiment.server.rounds, opened.rundir
    played = rundir.load("last").round if rundir.has("last") else 0
    start = f", from round {played + 1} on" if 0 < played < rounds else ""
    return f"{in_one_line(opened.experiment)}; {counted(rounds, 'round')}{start}, into {rundir.path}"


class _Bar(Callback):
    """A run's progress. It is announced when nothing stands against it any more: what is refused is no run."""

    def __init__(self, console: Console, rounds: int, announcement: str) -> None:
        self._console, self._rounds, self._announcement = console, rounds, announcement
        self._checking = console.status("checking and starting")
        self._progress = _progress(console)
        self._task: TaskID | None = None

    def __enter__(self) -> None:
        self._checking.start()

    def __exit__(self, *_: object) -> None:
        self._checking.stop()
        if self._task is not None:
            self._progress.stop()

    def on_start(self, rounds: int) -> None:
        """A run that is continued is not at its beginning; one that lacks its judgement is judged alone."""
        self._checking.stop()
        self._console.print(self._announcement)
        first = "starting" if rounds < self._rounds else "judging"
        self._task = self._progress.add_task(first, total=self._rounds, completed=rounds)
        self._progress.start()

    def on_round_end(self, record: Mapping[str, Any]) -> None:
        """One round further, with its figures."""
        assert self._task is not None
        _advance(self._progress, self._task, record)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("round"),
        MofNCompleteColumn(),
        BarColumn(bar_width=20),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.description}"),
        console=console,
    )


def _advance(progress: Progress, task: TaskID, record: Mapping[str, Any]) -> None:
    figures = [f"{key} {record['train'][key]:.3f}" for key in ("loss", *SCORES) if key in record["train"]]
    if record["validation"]:
        validation = Evaluation.from_json(record["validation"])
        figures.append(f"validation {validation.score_name} {validation.after.mean:.3f}")
        progress.console.print(f"round {record['round']}: " + ", ".join(figures))
    progress.update(task, completed=record["round"], description=", ".join(figures))


def registries() -> dict[str, Registry]:
    """Every registry by its kind."""
    from fedmeta.adversarial import OBJECTIVES
    from fedmeta.attacks import ATTACKS
    from fedmeta.data import DATASETS, PARTITIONS
    from fedmeta.deployment import DEPLOYMENTS
    from fedmeta.evasion import EVASIONS
    from fedmeta.learners import LEARNERS
    from fedmeta.models import MODELS
    from fedmeta.optimisers import OPTIMISERS
    from fedmeta.query_detection import DETECTORS
    from strategies import AGGREGATORS, PREAGGREGATORS, SAMPLERS

    learning = (LEARNERS, MODELS, DATASETS, PARTITIONS, OPTIMISERS)
    attacking = (ATTACKS, EVASIONS, OBJECTIVES, DEPLOYMENTS, DETECTORS)
    known = (*learning, PREAGGREGATORS, AGGREGATORS, SAMPLERS, *attacking)
    return {registry.kind: registry for registry in known}


def print_registries(kind: str | None) -> None:
    """Print one registry or all.

    Raises:
        ConfigurationError: an unknown kind.
    """
    known = registries()
    if kind is not None and kind not in known:
        raise ConfigurationError(f"unknown kind '{kind}'{did_you_mean(kind, list(known))}")
    console = Console()
    for registry in [known[kind]] if kind is not None else known.values():
        table = Table(title=registry.kind, title_justify="left", box=None, padding=(0, 2, 0, 0), show_header=False)
        for name, entry in sorted(registry.entries().items()):
            table.add_row(f"[bold]{name}[/]", entry.summary, f"[dim]{entry.source}[/]")
        console.print(table)


def print_examination(found: Mapping[str, Any]) -> None:
    """What `fedmeta detect` says."""
    from server.report.inversion import inversion_caption, spectral_in_words

    inversion, console = found["inversion"], Console()
    table = Table(title=f"Smallest triggers of the model of round {found['round']}", title_justify="left")
    for column in ("slot", "pixels (L1)", "outlier index", "success", "on other episodes"):
        table.add_column(column, justify="right")
    for slot in inversion["slots"]:
        size = f"{slot['norm']:.1f}" if slot["reached"] else "none works"
        index = "infinite" if slot["index"] is None else f"{slot['index']:.2f}"
        table.add_row(str(slot["slot"]), size, index, *(f"{100 * slot[key]:.1f} %" for key in ("success", "held_out")))
    console.print(table)
    console.print(inversion_caption(found))
    if found["spectral"] is not None:
        console.print(spectral_in_words(found["spectral"]))


def evasion_progress(*, quiet: bool) -> Callable[[Any], None]:
    """What prints each figure of `fedmeta attack` as it is known; on JSON's account, nothing."""
    console = Console(quiet=quiet)

    def say(figure: Any) -> None:
        accuracy = figure.accuracy
        console.print(f"eps {figure.eps:g}, {figure.attack or 'worst of all'}: {100 * accuracy.mean:.1f} % right")

    return say


def print_evasion(found: Mapping[str, Any]) -> None:
    """What `fedmeta attack` says."""
    from server.report.evasion import evasion_rows, protocol_in_words

    columns, rows = evasion_rows(found)
    table = Table(title=f"Accuracy under attack, {found['model']} model, round {found['round']} (95 % interval)")
    table.title_justify = "left"
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(protocol_in_words(found))


def print_diagnosis(found: "Diagnosis") -> None:
    """What `fedmeta doctor` says."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("versions", ", ".join(f"{name} {version}" for name, version in found.versions.items()))
    table.add_row("this machine", f"{found.cores} cores, {found.memory / 2**30:.1f} GiB free")
    for i, machine in enumerate(found.machines):
        table.add_row(f"Ray node {i + 1}", f"{machine.cpus:g} CPUs, {machine.gpus:g} GPUs")
    for name, free in found.gpus or [("none that torch sees", 0)]:
        table.add_row("GPU", f"{name}, {free / 2**30:.1f} GiB free" if free else name)
    table.add_row("clients compute on", found.device)
    table.add_row("plan", found.plan)
    for i, reason in enumerate(found.why):
        table.add_row("why" if i == 0 else "", reason)
    Console().print(table)
