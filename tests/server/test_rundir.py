"""Run directories: nothing half written, nothing lost, nothing of another run."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save as serialise

from fedmeta.errors import CheckpointError, FedmetaError
from server.checkpoint import Checkpoint
from server.configuration import load
from server.files import CannotWrite
from server.rundir import RunDir


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run", load({}))


def checkpoint(round: int = 3) -> Checkpoint:
    flat = torch.arange(7, dtype=torch.float32)
    return Checkpoint(
        round,
        "e" * 64,
        "s" * 64,
        {"z.weight": flat[:6].reshape(2, 3), "a.scale": flat[6].reshape(())},
        {"step": torch.tensor(4), "first": torch.randn(7)},
        {"best": {"round": 2, "score": 0.5}},
    )


def test_checkpoints_come_back_bit_for_bit_and_in_order(rundir: RunDir) -> None:
    assert not rundir.has("last")
    saved = checkpoint()
    rundir.save("last", saved)
    found = rundir.load("last")
    assert list(found.params) == ["z.weight", "a.scale"], "the order of the spec, not of the alphabet"
    for name in saved.params:
        assert torch.equal(found.params[name], saved.params[name])
    assert all(torch.equal(found.optimiser[name], saved.optimiser[name]) for name in saved.optimiser)
    assert (found.round, found.facts) == (3, saved.facts)
    found.check("e" * 64, "s" * 64)
    with pytest.raises(CheckpointError, match="another experiment"):
        found.check("x" * 64, "s" * 64)


def test_a_crash_while_writing_leaves_the_old_checkpoint(rundir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    rundir.save("last", checkpoint(3))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        rundir.save("last", checkpoint(4))
    assert rundir.load("last").round == 3
    assert sorted(path.name for path in (rundir.path / "checkpoints").iterdir()) == ["last.safetensors"]


def test_a_torn_last_line_is_left_out_and_a_torn_middle_is_not(rundir: RunDir) -> None:
    for round in (1, 2, 3):
        rundir.append({"round": round, "loss": float("nan")})
    path = rundir.path / "metrics.jsonl"
    assert [record["loss"] for record in rundir.metrics()] == [None] * 3
    path.write_text(path.read_text()[:-5])
    assert [record["round"] for record in rundir.metrics()] == [1, 2]
    rundir.truncate(1)
    assert [json.loads(line)["round"] for line in path.read_text().splitlines()] == [1]
    path.write_text('{"round": 1\n{"round": 2}\n')
    with pytest.raises(CheckpointError, match="line 1"):
        rundir.metrics()


def test_missing_and_damaged_checkpoints(rundir: RunDir) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        rundir.load("last")
    path = rundir.path / "checkpoints" / "last.safetensors"
    rundir.save("last", checkpoint())
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 0x40  # within the numbers, where the format checks nothing
    at = whole.index(b"{") + whole[whole.index(b"{") :].index(b"round") + 9
    other_round = whole[:at] + whole[at:].replace(b"3", b"4", 1)
    for damaged in (b"", b"\0" * 100, whole[:-5], bytes(flipped), other_round):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"last.safetensors' is damaged .*start a new run"):
            rundir.load("last")
    path.write_bytes(whole)
    assert rundir.load("last").round == 3


def test_a_checkpoint_of_before_digests_is_not_called_damaged(rundir: RunDir) -> None:
    rundir.save("last", checkpoint())
    path = rundir.path / "checkpoints" / "last.safetensors"
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["fedmeta"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
    del header["digest"]
    path.write_bytes(serialise(tensors, {"fedmeta": json.dumps(header)}))
    assert rundir.load("last").round == 3


def test_damaged_files_are_named_with_what_to_do(rundir: RunDir) -> None:
    for name, read in (("results.json", rundir.results), ("environment.json", rundir.environment)):
        (rundir.path / name).write_text('{"rou')
        with pytest.raises(CheckpointError, match=rf"{name}' is damaged"):
            read()
    (rundir.path / "metrics.jsonl").write_text('{"round": 1}\n[2]\n')
    with pytest.raises(CheckpointError, match=r"line 2 .* is damaged"):
        rundir.truncate(1)
    (rundir.path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json' is damaged or of another version"):
        RunDir.open(rundir.path, exclusive=False)
    with pytest.raises(CheckpointError, match="is not a run directory"):
        RunDir.open(rundir.path / "checkpoints")


def test_a_disk_that_fills_is_one_message_and_the_old_files_stay(
    rundir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    rundir.write_results({"rounds": 1})
    rundir.save("last", checkpoint(1))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: rundir.append({"round": 2}),
        lambda: rundir.write_results({"rounds": 2}),
        lambda: rundir.save("last", checkpoint(2)),
    ):
        with pytest.raises(FedmetaError, match=r"cannot write .*No space left.* --resume"):
            write()
    assert rundir.results() == {"rounds": 1} and rundir.load("last").round == 1
    assert not list(rundir.path.rglob(".*json.*")) and not list(rundir.path.rglob(".last*"))


def test_one_writer_at_a_time(rundir: RunDir) -> None:
    with pytest.raises(FedmetaError, match="another process"):
        RunDir.open(rundir.path)
    assert RunDir.open(rundir.path, exclusive=False).experiment == rundir.experiment
    rundir.close()
    assert RunDir.open(rundir.path).experiment == rundir.experiment


def test_a_killed_process_lets_go_of_its_directory(rundir: RunDir) -> None:
    rundir.close()
    hold = (
        f"from server.rundir import RunDir; run = RunDir.open({str(rundir.path)!r}); print('held', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(FedmetaError, match="another process"):
            RunDir.open(rundir.path)
    finally:
        holder.kill()
        holder.wait()
    RunDir.open(rundir.path).close()


def test_a_directory_that_has_become_unwritable_is_not_resumed(rundir: RunDir) -> None:
    rundir.close()
    (rundir.path / ".lock").unlink()
    (rundir.path / ".lock").mkdir()  # stands for a read-only place, which root could write
    with pytest.raises(FedmetaError, match="only go on where it can write"):
        RunDir.open(rundir.path)


def test_a_place_that_cannot_be_written_is_refused_early(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FedmetaError, match=r"cannot write the run directory .*--out"):
        RunDir.create(tmp_path / "file" / "run", load({}))


def test_fresh_directories_do_not_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = RunDir.create(None, load({})), RunDir.create(None, load({}))
    assert first.path != second.path and first.path.parent.name == "runs"


def test_the_environment_says_what_it_was(rundir: RunDir) -> None:
    rundir.write_environment()
    rundir.write_environment()
    found, again = rundir.environment()
    assert again["code_hash"] == found["code_hash"], "a resumed run keeps what it began with"
    assert (
        found["packages"]["torch"] == torch.__version__.split("+")[0] or found["packages"]["torch"] == torch.__version__
    )
    assert found["seed"] == 0 and found["code_hash"] and found["python"]


def test_a_failed_start_leaves_no_directory_and_anything_more_stays(tmp_path: Path) -> None:
    start = RunDir.create(tmp_path / "run", load({}))
    start.write_environment()
    assert start.unstarted
    start.discard(CannotWrite("no space left on device"))
    assert start.path.exists(), "to go on with once that is mended"
    start.discard(FedmetaError("cannot be"))
    assert not (tmp_path / "run").exists()
    for number, keep in enumerate((lambda d: d.append({"round": 1}), lambda d: d.save("last", checkpoint()))):
        begun = RunDir.create(tmp_path / str(number), load({}))
        keep(begun)
        begun.discard(FedmetaError("cannot be"))
        assert begun.path.exists() and not begun.unstarted
    spent = RunDir.create(tmp_path / "spent", load({}))
    (spent.path / "privacy.jsonl").touch()
    spent.discard(FedmetaError("cannot be"))
    assert (spent.path / "privacy.jsonl").exists(), "what was spent stays spent"
    first = RunDir.create(tmp_path / "opened", load({}))
    first.close()
    again = RunDir.open(tmp_path / "opened")
    again.discard(FedmetaError("cannot be"))
    assert again.path.exists(), "a run to go on with is not this call's to take away"


def test_a_run_that_never_finished_a_round_gives_its_place_to_a_mended_one(tmp_path: Path) -> None:
    first = RunDir.create(tmp_path / "run", load({}))
    first.write_environment()
    first.close()
    second = RunDir.create(tmp_path / "run", load({"seed": 1}))
    assert second.experiment.seed == 1 and second.environment() == []
    second.save("last", checkpoint())
    second.close()
    with pytest.raises(FedmetaError, match="is not empty"):
        RunDir.create(tmp_path / "run", load({}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(FedmetaError, match="is not empty"):
        RunDir.create(tmp_path / "other", load({}))
