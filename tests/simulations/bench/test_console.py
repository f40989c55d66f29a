"""`fedmeta bench` as one types it: the plan, the run, what it refuses."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedmeta.errors import FedmetaError
from simulations.command import app

GRID = """
name = "two"
seeds = [0, 1]
[base.data]
name = "sinusoid"
[base.partition]
name = "iid"
clients = 4
test_clients = 1
validation_clients = 0
[base.task]
ways = 1
shots = 3
[base.model]
name = "sinusoid"
[base.learner]
name = "fomaml"
inner_lr = 0.01
[base.client]
execution = "loop"
[base.server]
rounds = 2
sampling = { name = "fixed", clients = 3 }
[base.evaluation]
episodes = 1
pooled_episodes = 2
[[defences]]
aggregator = "median"
[[defences]]
aggregator = { name = "trimmed_mean", f = 2 }
"""


@pytest.fixture
def two(tmp_path: Path) -> Path:
    (tmp_path / "two.toml").write_text(GRID)
    return tmp_path / "two.toml"


def call(*words: Any) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False, env={"COLUMNS": "200"})


def test_a_plan_runs_nothing_and_says_what_would_be(two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = call("bench", two, "--plan", "--out", out)
    said = " ".join(found.output.split())
    assert found.exit_code == 0 and not out.exists()
    for words in (
        "two: 1 attack, seeds 0, 1",
        "refused: none, trimmed_mean",
        "4 different runs, 0 of them finished",
        "about ",
    ):
        assert words in said, said


def test_a_run_prints_matrix_refusals_and_page(two: Path, tmp_path: Path) -> None:
    found = call("bench", two, "--engine", "inline", "--out", tmp_path / "out")
    said = " ".join(found.output.split())
    assert found.exit_code == 0 and "main task" in said and "refused: none, trimmed_mean, seed 0" in said
    assert (tmp_path / "out" / "report.html").exists()
    again = " ".join(call("bench", two, "--plan", "--out", tmp_path / "out").output.split())
    assert "4 of them finished" in again and "from the cells that are finished" in again


def test_a_failed_cell_gives_exit_code_1(two: Path, tmp_path: Path) -> None:
    two.write_text(GRID + '[[defences]]\naggregator = "fltrust"\nroot = "validation"\n')
    found = call("bench", two, "--engine", "inline", "--out", tmp_path / "out")
    assert found.exit_code == 1 and "failed" in found.output


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--engine", "rya"), "did you mean 'ray'"), (("--engine", "inline", "--workers", "0"), "workers = 0")],
)
def test_what_cannot_be_is_refused(two: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(FedmetaError, match=said):
        call("bench", two, "--out", tmp_path / "out", *words)
