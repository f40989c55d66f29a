"""Every command with one degenerate word in turn: a result or a clear error, never a traceback, a hang, or a half file.

A command or an option that is added is tried without a line here, but for the words of a call that works (`calls`).
"""

import json
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

from fedmeta.errors import FedmetaError
from simulations import simulate
from simulations.command import app

INTEGERS = ("0", "-1", "1", "1.5", "nan", "100000000000000000000", "many", "")
FLOATS = ("0", "-1", "nan", "inf", "-inf", "1e308", "1e-308", "much", "")
WORDS = ("", "no-such-word", "x" * 5000, "[", "../..", "0", "é")
PATIENCE = 60
"""Seconds, after which a command hangs."""

RUN: dict[str, Any] = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 8, "validation_clients": 1, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "fomaml", "inner_lr": 0.01},
    "client": {"steps": 1, "tasks_per_step": 1, "execution": "loop"},
    "server": {"rounds": 1, "sampling": {"name": "fixed", "clients": 6}},
    "evaluation": {"every": 1, "episodes": 1, "validation_episodes": 1, "pooled_episodes": 2},
}
GLYPHS: dict[str, Any] = {
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
    "task": {"ways": 3, "shots": 1, "queries": 1},
    "model": {"name": "mlp", "hidden": [32], "normalisation": "none"},
    "learner": {"name": "fomaml", "inner_lr": 0.1},
    "client": {"steps": 1, "tasks_per_step": 1},
    "server": {"rounds": 1, "sampling": {"name": "fixed", "clients": 2}},
    "evaluation": {"episodes": 2, "validation_episodes": 2, "pooled_episodes": 2},
}
PRIVATE = {**RUN, "privacy": {"unit": "client", "noise_multiplier": 1.0, "delta": 1e-2}}
GRID: dict[str, Any] = {
    "name": "waves",
    "base": {**RUN, "attack": {"fraction": 0.25}},
    "seeds": [0],
    "f": 1,
    "attacks": [{"method": {"name": "sign_flip", "scale": 5.0}, "knowledge": "omniscient"}],
    "defences": [{"aggregator": "median"}],
}

QUICK = ("certs", "list", "config", "export", "report", "privacy")
"""What works for milliseconds; the others train or ask Flower, and take minutes in all."""


DEFAULTS = ("export-data", "simulate")
"""What takes an empty file for the default experiment, and works for minutes on it."""


def calls(home: Path) -> dict[str, list[str]]:
    """Words with which each command works; the paths are those of `home`, and what it writes goes to `home/out`."""
    run, out, glyphs = str(home / "run.toml"), str(home / "out"), str(home / "glyphs")
    return {
        "certs": ["--host", "127.0.0.1", "--node", "a", "--output", out],
        "export-data": [str(home / "glyphs.toml"), "--output", out],
        "simulate": [run, "--engine", "inline", "--out", out],
        "list": [],
        "config": [run],
        "doctor": [run],
        "export": [run, "--output", str(home / "out.toml")],
        "status": [str(home / "run")],
        "report": [str(home / "run")],
        "audit": [str(home / "private.toml"), "--engine", "inline", "--canaries", "20", "--out", out],
        "leak-check": [glyphs],
        "detect": [glyphs, "--episodes", "2", "--steps", "2"],
        "attack": [glyphs, "--eps", "0.1", "--attacks", "fgsm", "--episodes", "2"],
        "certify": [glyphs, "--sigma", "0.25", "--episodes", "1", "--queries", "1", "--samples", "10", "--select", "5"],
        "detect-queries": [glyphs, "--eps", "0.1", "--episodes", "2", "--steps", "2"],
        "explain": [glyphs, "--episodes", "1", "--no-clients"],
        "tune": [run, "--search", "learner.inner_lr=log:.01:1", "--trials", "1", "--engine", "inline", "--out", out],
        "privacy": ["--noise-multiplier", "1"],
        "privacy-sweep": [str(home / "private.toml"), "--out", out, "--engine", "inline", "--epsilon", "10"],
        "bench": [str(home / "grid.toml"), "--out", out, "--engine", "inline"],
        "deploy check": ["--insecure"],
        "deploy run": ["--out", out, run, "--superlink", "nowhere"],
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experiments, a run on sine waves, and bad places."""
    place = tmp_path_factory.mktemp("degenerate")
    for name, raw in (("run", RUN), ("glyphs", GLYPHS), ("private", PRIVATE), ("grid", GRID)):
        (place / f"{name}.toml").write_text("\n".join(f"{key} = {_toml(value)}" for key, value in raw.items()))
    simulate(RUN, engine="inline", out=place / "run")
    (place / "folder").mkdir()
    (place / "empty").touch()
    (place / "rubbish").write_bytes(bytes(range(256)))
    return place


@pytest.fixture(scope="module")
def glyphs(home: Path) -> None:
    """A run on images beside it."""
    simulate(GLYPHS, engine="inline", out=home / "glyphs")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def leaves(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(name, click command) of every command that does something, `deploy check` among them."""
    group = typer.main.get_command(app) if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(leaves())


def degenerate(parameter: Any, home: Path) -> tuple[str, ...]:
    """Words that fit badly, by the parameter's type; a folder of /proc takes no files, not even root's."""
    kind = parameter.type
    if isinstance(kind, click.types.IntParamType):
        return INTEGERS
    if isinstance(kind, click.types.FloatParamType):
        return FLOATS
    if "Path" in type(kind).__name__:
        bad = ("missing", "folder", "empty", "rubbish", "empty/below")
        return (*(str(home / name) for name in bad), "/proc/takes-no-files")
    return WORDS if isinstance(kind, click.types.StringParamType) else ()


def altered(words: list[str], parameter: Any, word: str) -> list[str]:
    """A call that works, with one word in the place of the parameter's own."""
    words = list(words)
    if parameter.param_type_name == "argument":
        places = [i for i, each in enumerate(words) if not each.startswith("-") and not words[i - 1].startswith("-")]
        places = places if words and not words[0].startswith("-") else places[1:] or places
        if places:
            words[places[0]] = word
            return words
        return [word, *words]
    given = next((i for i, each in enumerate(words) if each in parameter.opts), None)
    if given is None:
        return [*words, parameter.opts[0], word]
    words[given + 1] = word
    return words


def fault(words: list[str], patience: Any) -> str | None:
    """What is wrong with how the command took its words; None where it gave a result or a clear error."""
    with patience(PATIENCE) as wait:
        done = CliRunner().invoke(app, words)
    if wait.over:
        return f"no end after {PATIENCE} s"
    error = done.exception
    if error is None or isinstance(error, SystemExit):
        if done.exit_code not in (0, 1, 2):
            return f"exit code {done.exit_code}"
        return None if done.exit_code == 0 or done.output.strip() else "an exit code without a word"
    if isinstance(error, FedmetaError):
        return None if str(error).strip() else "an error without a word"
    return f"{type(error).__name__}: {error}"


def half_written(place: Path) -> list[str]:
    """Files under a place that cannot be read as what they are, and temporary ones."""
    found = []
    for path in (each for each in place.rglob("*") if each.is_file()):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".toml":
                tomllib.loads(path.read_text())
        except ValueError:
            found.append(path.name)
        if path.name.startswith(".") and path.stat().st_size and path.suffix not in (".lock", ""):
            found.append(path.name)
    return found


def faults(command: str, home: Path, patience: Any) -> list[str]:
    """Of one command, over all its parameters and their degenerate words."""
    found = []
    words, out = calls(home)[command], home / "out"
    for parameter in COMMANDS[command].params:
        for word in degenerate(parameter, home):
            if word.endswith("/empty") and command in DEFAULTS and parameter.param_type_name == "argument":
                continue
            shutil.rmtree(out, ignore_errors=True)
            what = fault([*command.split(), *altered(words, parameter, word)], patience)
            left = half_written(out) if out.is_dir() else []
            if what or left:
                found.append(f"{command} {parameter.opts[0]} {word[:40]!r}: {what or 'left ' + ', '.join(left)}")
    return found


def test_every_command_is_tried(home: Path) -> None:
    assert set(calls(home)) == set(COMMANDS)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("command", QUICK)
def test_degenerate_words_meet_a_result_or_a_clear_error(home: Path, command: str, patience: Any) -> None:
    assert faults(command, home, patience) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("glyphs")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("command", sorted(set(COMMANDS) - set(QUICK)))
def test_degenerate_words_of_commands_that_train(home: Path, command: str, patience: Any) -> None:
    assert faults(command, home, patience) == []
