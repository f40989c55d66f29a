"""A finished run that is resumed: it says that nothing is left to do, and its files stay as they are."""

import json
import os
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from simulations import simulate
from simulations.command import app
from simulations.console import _in_words
from simulations.launch import open_run, play

RAW = {
    "name": "over",
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 2, "validation_clients": 1, "test_clients": 1},
    "task": {"ways": 1, "shots": 2, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "fomaml", "inner_lr": 0.01},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 1}},
    "evaluation": {"every": 1, "episodes": 1, "validation_episodes": 1, "pooled_episodes": 2},
}


def files(place: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(place)): (path.read_bytes(), os.stat(path).st_mtime_ns)
        for path in place.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_a_finished_run_says_so_and_stays_as_it_is(tmp_path: Path) -> None:
    first = simulate(RAW, engine="inline", out=tmp_path / "run", report=False)
    before = files(tmp_path / "run")
    done = CliRunner().invoke(app, ["simulate", "--resume", str(tmp_path / "run")], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "is finished (2 rounds): nothing is left to do" in done.output and "after adaptation" in done.output
    assert files(tmp_path / "run") == before
    again = simulate(resume=tmp_path / "run", report=False, overrides={"engine.actors": 1})
    assert torch.equal(again.vector, first.vector) and again.model_hash == first.model_hash
    assert again.rounds == 2 and again.history == first.history and again.failed_rounds == ()
    assert again.evaluation("pooled") == first.evaluation("pooled")
    assert files(tmp_path / "run") == before


def test_a_resumed_run_says_where_it_goes_on(tmp_path: Path) -> None:
    def interrupt(record: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(RAW, engine="inline", out=tmp_path / "run", report=False, observers=[interrupt])
    opened = open_run(None, resume=tmp_path / "run")
    try:
        assert "2 rounds, from round 2 on, into" in _in_words(opened)
    finally:
        opened.rundir.close()


@pytest.mark.parametrize("lacking", ["results", "a test client"])
def test_what_lacks_its_judgement_is_judged_again(lacking: str, tmp_path: Path) -> None:
    first = simulate(RAW, engine="inline", out=tmp_path / "run", report=False)
    place = tmp_path / "run" / "results.json"
    told = json.loads(place.read_text())
    place.unlink()
    if lacking == "a test client":
        told["last"] |= {"test": None, "failed": {"3": "no reply within the time limit"}}
        place.write_text(json.dumps(told))
    again = simulate(resume=tmp_path / "run", engine="inline", report=False)
    assert again.results["last"] == first.results["last"]
    assert json.loads(place.read_text())["last"]["failed"] == {}


def test_a_run_that_was_not_judged_is_judged_when_it_is_resumed(tmp_path: Path) -> None:
    unjudged = play(open_run(RAW, out=tmp_path / "run"), "inline", draw=False, judge=False)
    assert unjudged.evaluation("test") is None
    assert simulate(resume=tmp_path / "run", engine="inline", report=False).evaluation("test") is not None
