"""What `fedmeta status` prints. Paths and ids are there to be copied: each stands whole in a line of its own."""

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from fedmeta.statistics import SCORES
from server.words import counted, duration
from simulations.deploy.flower import FlowerRun
from simulations.deploy.status import RunStatus, Status

SHOWN = ("loss", *SCORES, "epsilon-rdp")
"""Metrics of training that are told."""


def print_status(console: Console, found: Status) -> None:
    """Run directories, then what the SuperLink tells, each name with its state below it."""
    for run in found.directories:
        _say(console, run.path, run_in_words(run))
    if found.flower_runs is not None:
        console.print(f"{counted(len(found.flower_runs), 'run')} of the SuperLink")
        for submitted in found.flower_runs:
            _say(console, submitted.run_id, _submitted_in_words(submitted))
    if found.flower_nodes is not None:
        console.print(counted(len(found.flower_nodes), "SuperNode"))
        for node in found.flower_nodes:
            _say(console, node.node_id, [", ".join(filter(None, (node.status, node.name)))])
    if found.problem:
        console.print(found.problem, markup=False)


def run_in_words(run: RunStatus) -> list[str]:
    """Lines about a run: how far it is, what it reached, and what went wrong."""
    if run.problem:
        return [run.problem]
    state = f"{run.name}: {run.round} of {counted(run.rounds, 'round')}{', finished' if run.finished else ''}"
    written = "" if run.age is None else f", last written {duration(run.age)} ago"
    reached = [f"{key} {run.train[key]:.4g}" for key in SHOWN if run.train.get(key) is not None]
    if run.validation is not None:
        reached.append(f"validation {run.validation[1]} {run.validation[2]:.4g} (round {run.validation[0]})")
    wrong = [f"rounds {list(run.failed_rounds)} did not go well"] if run.failed_rounds else []
    wrong += [f"client {client}: {reason}" for client, reason in run.failed.items()]
    return [line for line in (state + written, ", ".join(reached), "; ".join(wrong)) if line]


def _submitted_in_words(run: FlowerRun) -> list[str]:
    state = f"{run.status}, {duration(run.seconds)}, {run.bytes:,} bytes"
    return [state, run.details] if run.details else [state]


def _say(console: Console, name: str, lines: Sequence[str]) -> None:
    console.print(Text(name, "bold"), soft_wrap=True)  # what is longer than the terminal is left to that
    console.print(Padding(Text("\n".join(lines)), (0, 0, 0, 4), expand=False))
