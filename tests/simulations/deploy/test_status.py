"""`fedmeta status` of run directories."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fedmeta.errors import FedmetaError
from simulations import simulate
from simulations.command import app
from simulations.deploy.flower import FlowerNode, FlowerRun
from simulations.deploy.run import run_configuration
from simulations.deploy.status import RunStatus, Status, look
from simulations.deploy.status_console import print_status

RAW = {
    "name": "little",
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 2, "validation_clients": 1, "test_clients": 1},
    "task": {"ways": 1, "shots": 2, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "fomaml", "inner_lr": 0.01},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 1}},
    "evaluation": {"every": 2, "episodes": 1, "validation_episodes": 1, "pooled_episodes": 1},
}


def test_status_tells_rounds_metrics_and_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    result = simulate(RAW, engine="inline", out=tmp_path / "runs" / "a")
    simulate(RAW, engine="inline", out=tmp_path / "runs" / "b", overrides={"server.rounds": 1})
    (tmp_path / "runs" / "b" / "results.json").unlink()
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "config.json").write_text("{")
    found = {Path(run.path).name: run for run in look([tmp_path / "runs"], None).directories}
    a = found["a"]
    assert (a.name, a.round, a.rounds, a.finished) == ("little", 2, 2, True)
    assert a.train == result.history[-1]["train"] and a.validation is not None and a.validation[:2] == (2, "mse")
    assert a.age is not None and 0 <= a.age < 60
    assert not found["b"].finished and found["b"].round == 1
    assert "damaged" in found["broken"].problem
    assert [run.path for run in look([tmp_path / "runs" / "a"], None).directories] == [a.path]
    silent = CliRunner().invoke(app, ["status", str(tmp_path / "runs"), "--superlink", "nobodys", "--json"])
    said = json.loads(silent.output)
    assert silent.exit_code == 1 and "nobodys" in said["problem"] and len(said["directories"]) == 3
    (tmp_path / "empty").mkdir()
    nothing = CliRunner().invoke(app, ["status", str(tmp_path / "empty")])
    assert nothing.exit_code == 0 and nothing.output.startswith("no run directory in ") and "┃" not in nothing.output
    with pytest.raises(FedmetaError, match="there is no folder"):
        look([tmp_path / "nowhere"], None)
    printed = CliRunner().invoke(app, ["status", str(tmp_path / "runs"), "--json"])
    assert {Path(run["path"]).name for run in json.loads(printed.output)["directories"]} == set(found)
    table = CliRunner().invoke(app, ["status", str(tmp_path / "runs" / "a")], env={"COLUMNS": "200"})
    assert "2 of 2 rounds, finished" in table.output and "mse" in table.output


def test_names_can_be_copied_from_a_terminal_of_any_width() -> None:
    """Each path stands in one line of its own, and no id is cut."""
    name = f"runs/{'a-long-name-' * 8}20261201-152411"
    reason = "client-side trouble with words that are many, and more of them than a narrow terminal has room for"
    run = RunStatus(name, "little", 1, 2, train={"loss": 0.5}, failed={"3": reason}, failed_rounds=(1,))
    number = "12345678901234567890"
    flower = FlowerRun(number, "finished:failed", "ServerApp failed with exception: " + reason, 12.0, 123_456_789)
    found = Status([run, RunStatus("runs/broken", problem="damaged")], [flower], [FlowerNode(number, "online", "n")])
    for width in (40, 80, 200):
        console = Console(file=io.StringIO(), width=width)
        print_status(console, found)
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert {name, "runs/broken"} <= set(lines), "nothing else in its line"
        assert lines.count(number) == 2, "the run and the node"
        assert "little: 1 of 2 rounds" in [line.strip() for line in lines]
        assert all(len(line) <= width for line in lines if line != name) and "…" not in "".join(lines)


def test_a_deployed_runs_directory_is_absolute() -> None:
    from server.configuration import load

    experiment = load(RAW)
    with pytest.raises(FedmetaError, match="must be an absolute path"):
        run_configuration(experiment, Path("runs/a"))
    assert run_configuration(experiment, Path('/runs/a "b"')).endswith('out = "/runs/a \\"b\\""\n')
