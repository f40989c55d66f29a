"""The `fedmeta` command: what it prints, what it refuses in one line, how fast it says hello."""

import json
import os
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from fedmeta.errors import ConfigurationError, FedmetaError
from server.configuration import from_run_config, load
from simulations import simulate
from simulations.command import app
from simulations.shipped import CONFIGS, shipped_for, where_to_start

TINY = """
name = "tiny"
[data]
name = "sinusoid"
[partition]
name = "iid"
clients = 2
validation_clients = 1
test_clients = 1
[task]
ways = 1
[model]
name = "sinusoid"
[learner]
name = "fomaml"
inner_lr = 0.01
[server]
rounds = 2
sampling = { name = "fixed", clients = 1 }
[evaluation]
every = 1
episodes = 1
validation_episodes = 1
pooled_episodes = 2
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path / "tiny.toml"


def call(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def process(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simulations.command", *words]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )


@pytest.mark.parametrize(
    "kind",
    [
        "learners",
        "models",
        "datasets",
        "partitions",
        "optimisers",
        "aggregators",
        "preaggregators",
        "samplers",
        "attacks",
    ],
)
def test_list_prints_a_line_each(kind: str) -> None:
    output = call("list", kind)
    assert kind in output and len(output.splitlines()) >= 2


def test_help_describes_arguments() -> None:
    assert "learners, models" in call("list", "--help")


def test_no_help_is_cut_on_a_terminal_of_80_columns() -> None:
    """Names of options are there to be copied."""

    def commands(one: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        yield path
        for name, inner in getattr(one, "commands", {}).items():
            yield from commands(inner, (*path, name))

    for path in commands(get_command(app)):
        told = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80"})
        assert told.exit_code == 0 and "Usage" in told.output
        assert "…" not in told.output, path
        assert all(len(line) <= 80 for line in told.output.splitlines()), path


def test_list_names_sources_and_refuses_unknown_kinds() -> None:
    assert "Finn et al. 2017" in call("list", "learners")
    with pytest.raises(FedmetaError, match="did you mean 'learners'"):
        call("list", "learner")


def test_the_printed_configuration_gives_the_same_experiment(tiny: Path) -> None:
    text = call("config", str(tiny), "--set", "seed=7")
    assert "[rounds]" in text and ">= 0" in text and "inner-loop" not in text.splitlines()[0]
    assert load(tomllib.loads(text)) == load(tiny, {"seed": 7})
    assert load(json.loads(call("config", str(tiny), "--json"))) == load(tiny)


def test_export_feeds_the_flower_run_configuration(tiny: Path, tmp_path: Path) -> None:
    output = tmp_path / "run.toml"
    call("export", str(tiny), "--set", "learner.inner_lr=0.05", "-o", str(output))
    run_config = tomllib.loads(output.read_text())
    assert from_run_config(run_config, tmp_path) == load(tiny, {"learner.inner_lr": 0.05})
    again = from_run_config({**run_config, "set": "seed=3; server.rounds=9"}, tmp_path)
    assert (again.seed, again.server.rounds) == (3, 9)
    assert from_run_config({"config": str(tiny)}, tmp_path) == from_run_config({"config": "tiny.toml"}, tiny.parent)
    with pytest.raises(FedmetaError, match="not JSON"):
        from_run_config({"experiment": "{"}, tmp_path)


def test_simulate_prints_progress_table_and_report(tiny: Path, tmp_path: Path) -> None:
    done = process("simulate", str(tiny), "--engine", "inline", "--out", str(tmp_path / "run"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("round 2: loss", "validation mse", "before", "after", "95 %", str(tmp_path / "run")):
        assert word in done.stdout.replace("\n", " ") or word in done.stdout.replace("\n", "")
    assert call("report", str(tmp_path / "run")).strip() == str(tmp_path / "run" / "report.html")


def test_a_run_may_leave_its_report_for_later(tiny: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = call("simulate", str(tiny), "--engine", "inline", "--out", str(run), "--no-report")
    assert "report: " not in said and "run directory: " in said
    assert not (run / "report.html").exists() and not (run / "plots").exists()
    call("report", str(run))
    assert (run / "report.html").exists()


MISTAKES = {
    "simulate nowhere.toml": "cannot read the experiment file 'nowhere.toml'",
    "simulate --set learner.nam=maml": "learner.nam",
    "simulate --set rounds": "KEY=VALUE",
    "simulate --engine rey --set data.name=sinusoid --set partition.name=iid": "did you mean 'ray'",
    "simulate --resume nowhere": "not a run directory",
    "report nowhere": "not a run directory",
    "config --set server.rounds=-1": "server.rounds = -1",
    "list nothing": "unknown kind",
    "export -o no/such/folder/x.toml": "cannot write",
}

ONE_AFTER_THE_OTHER = """
import contextlib, io, json, sys
from simulations import command
found = {}
for line in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["fedmeta", *line.split()]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            command.main()
            code = 0
        except SystemExit as end:
            code = end.code
    found[line] = [code, out.getvalue(), err.getvalue()]
print(json.dumps(found))
"""


def test_mistakes_are_one_line_without_a_traceback(tmp_path: Path) -> None:
    """The first in a process of its own; all of them in one other, since a process takes seconds to start."""
    done = process(*next(iter(MISTAKES)).split(), cwd=tmp_path)
    found = {"alone": (done.returncode, done.stdout, done.stderr)}
    all_of_them = [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(list(MISTAKES))]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    told = subprocess.run(all_of_them, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment)
    found |= json.loads(told.stdout)
    assert len(found) == len(MISTAKES) + 1
    for line, (code, out, err) in found.items():
        assert code == 2 and err.startswith("fedmeta: ") and "Traceback" not in err + out, (line, err)
        assert MISTAKES.get(line, MISTAKES["simulate nowhere.toml"]) in err


def test_a_refused_run_is_not_announced_and_points_at_the_file_for_its_data(tiny: Path, tmp_path: Path) -> None:
    """The data of another scenario fit no other key: one is named, and where all fit."""
    place = tmp_path / "run"
    words = ["simulate", str(tiny), "--set", "data.name=ratings", "--engine", "inline", "--out", str(place)]
    done = process(*words, cwd=tmp_path)
    assert done.returncode == 2 and not place.exists()
    assert done.stdout.strip() == "", "no directory, and no bar"
    refusal = done.stderr.strip().splitlines()[-1]
    advice, _, fault = refusal.partition(" As it is: ")
    assert "for 'ratings' start from " in advice, "what mends all comes first"
    assert advice.endswith("configs/ratings.toml (or ratings-films.toml).") and "partition 'iid'" in fault
    assert "Traceback" not in done.stderr
    call("simulate", str(tiny), "--set", "server.rounds=1", "--engine", "inline", "--no-report", "--out", str(place))


@pytest.mark.parametrize("command", ["simulate", "doctor", "export", "deploy run --out /no/such/run", "config"])
def test_every_command_tells_at_once_what_does_not_fit_and_where_to_start(command: str, tmp_path: Path) -> None:
    """Pictures' partition, network and learner on ratings; the first three need the data, the others look at none."""
    demo = str(CONFIGS / "demo.toml")
    output = ["-o", str(tmp_path / "run.toml")] if command == "export" else []
    words = [*command.split(), demo, "--set", "data.name=ratings", *output]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        done = CliRunner().invoke(app, words)
    said = "\n".join([str(done.exception), *(str(warning.message) for warning in told)])
    assert "for 'ratings' start from " in said and said.index("start from") < said.index("conv4 takes images")
    assert "learner 'protonet' serves classification, not regression" in said
    assert ("partition 'alphabet_writer'" in said) == (command in ("simulate", "doctor", "export"))
    assert (done.exit_code == 0) == (command == "config"), "a configuration can be looked at"
    assert not list(tmp_path.iterdir()), "nothing is written"


@pytest.mark.parametrize(
    ("data", "first"), [("hershey", "demo"), ("omniglot", "omniglot-maml"), ("udhr", "text"), ("nodes", None)]
)
def test_shipped_files_are_known_by_their_data(data: str, first: str | None) -> None:
    found = shipped_for(data)
    assert [path.stem for path in found[:1]] == ([] if first is None else [first])
    assert where_to_start({"data": {"name": data}}, {"data.name": data}) == "", "no other data than its own"
    assert bool(where_to_start({"data": {"name": "sinusoid"}}, {"data.name": data})) == bool(found)


def test_an_unknown_engine_leaves_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'ray'"):
        simulate({"data": {"name": "sinusoid"}}, engine="rey", out=tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_too_few_valid_updates_end_with_another_exit_code(tiny: Path, tmp_path: Path) -> None:
    """Inner steps of 1e30 make every update NaN: no round is aggregated, and a script must notice."""
    words = ["--set", "learner.inner_lr=1e30", "--set", "client.optimiser.lr=1e30"]
    done = process("simulate", str(tiny), "--engine", "inline", "--out", str(tmp_path / "run"), *words, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 of 2 rounds did not go well" in done.stdout.replace("\n", " ")
    assert (tmp_path / "run" / "results.json").exists()


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from simulations.command import app; "
        "r = CliRunner().invoke(app, ['--help']); assert 'simulate' in r.output; "
        "r = CliRunner().invoke(app, ['list']); assert 'protonet' in r.output, r; "
        "print({'torch', 'ray', 'flwr', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.usefixtures("ray_session")
def test_doctor_says_the_plan_and_why() -> None:
    settings = ["data.name=sinusoid", "model.name=sinusoid", "learner.name=maml", "partition.name=iid"]
    settings.append("client.precision=tf32")
    words = [word for setting in settings for word in ("--set", setting)]
    found = CliRunner().invoke(app, ["doctor", "--json", *words])
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert told["machines"] and told["machines"][0]["cpus"] >= 1 and told["device"] == "cpu"
    assert "actors of 1 CPU each; 1 torch thread each; vmap, up to" in told["plan"]
    assert told["plan"].endswith("; training in tf32, which on a CPU is float32"), told["plan"]
    assert any("Ray counts" in reason for reason in told["why"])
    assert told["why"][-1].startswith("tasks are trained in batches (vmap): a net of ")
