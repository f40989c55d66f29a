"""Grids that are really played: pairing, going on after a kill, failing cells, the same bytes, what files say."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fedmeta.errors import FedmetaError
from server.rundir import RunDir
from simulations.bench.cells import find, make_plan
from simulations.bench.estimate import estimate
from simulations.bench.grid_file import read_grid
from simulations.bench.run import bench

FILES = ("results.csv", "summary.csv", "results.json", "report.html")

CODE = "import sys; from simulations.command import main; sys.argv = ['fedmeta', *sys.argv[1:]]; main()"


def bytes_of(place: Path) -> list[bytes]:
    return [(place / name).read_bytes() for name in FILES]


class Tags(HTMLParser):
    """Every element is closed, and nothing is fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for key, value in attrs if key in ("src", "srcset") or (tag == "link")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_cells_of_one_seed_share_clients_tasks_and_attackers(played) -> None:
    place, report = played
    cells = report.plan.cells
    for seed in (0, 7):
        own = [cell for cell in cells if cell.seed == seed]
        runs = {(c.attack, c.defence): RunDir.open(place / "cells" / c.key, exclusive=False) for c in own}
        metrics = {labels: rundir.metrics() for labels, rundir in runs.items()}
        assert len({str([record["sampled"] for record in found]) for found in metrics.values()}) == 1
        attacked = [found for (attack, _), found in metrics.items() if attack != "none"]
        assert len({str([record["attackers"] for record in found]) for found in attacked}) == 1
        assert any(record["attackers"] for record in attacked[0])
        # The first round's honest losses are those of one model on the same tasks.
        assert len({found[0]["train"]["loss"] for (attack, _), found in metrics.items() if attack == "none"}) == 1
    sampled = {
        str([r["sampled"] for r in RunDir.open(place / "cells" / c.key, exclusive=False).metrics()]) for c in cells
    }
    assert len(sampled) == 2  # one draw a seed


def test_values_are_those_of_the_runs(played) -> None:
    place, report = played
    for outcome in report.outcomes:
        results = json.loads((place / "cells" / outcome.cell.key / "results.json").read_text())
        pooled = results["last"]["pooled"]
        after = pooled["score"][pooled["steps"].index(pooled["adapted"])]["mean"]
        assert outcome.state == "done" and outcome.values["score"] == after
        reference = find(report.plan.cells, "", "none", "mean")[(0, 7).index(outcome.cell.seed)]
        [unattacked] = [o for o in report.outcomes if o.cell == reference]
        assert outcome.values["drop"] == pytest.approx(after - unattacked.values["score"])  # an error: more is worse
    row = next(row for row in report.rows if (row.attack, row.defence) == ("sign_flip", "median"))
    assert row.mean("score") == pytest.approx(sum(row.by_seed["score"].values()) / 2)


def test_detection_is_read_from_the_runs(played) -> None:
    """Multi-Krum scores and flags; the mean and the median accuse nobody."""
    place, report = played
    for outcome in report.outcomes:
        found = json.loads((place / "cells" / outcome.cell.key / "results.json").read_text()).get("detection")
        ranked = outcome.cell.defence == "multi_krum" and outcome.cell.attack != "none"
        assert ("auroc" in outcome.values) == ranked and (found is None) == (outcome.cell.defence != "multi_krum")
        if ranked:
            assert outcome.values["auroc"] == found["within"]["auroc"] > 0.5
            assert outcome.values["flagged"] == found["attacked"]["recall"]
        elif found is not None:  # a rule that always leaves clients out lays false alarms where nobody attacks
            assert outcome.values["false_alarms"] == found["clean"]["fpr"] > 0
    assert "TPR at 5 % FPR" in (place / "report.html").read_text()


def test_again_nothing_is_played_and_the_files_are_the_same(played) -> None:
    place, report = played
    before = bytes_of(place)
    written = {path: path.stat().st_mtime_ns for path in place.glob("cells/*/*")}
    again = bench(report.plan, place, engine="inline")
    assert bytes_of(place) == before and again.rows == report.rows
    assert {path: path.stat().st_mtime_ns for path in place.glob("cells/*/*")} == written


def test_ray_and_another_directory_give_the_same_files(
    played, waves: dict[str, Any], tmp_path: Path, ray_session
) -> None:
    place, _ = played
    settled: list[str] = []
    bench(waves, tmp_path, watch=lambda cell, reason: settled.append(cell.key))
    assert bytes_of(tmp_path) == bytes_of(place) and len(settled) == 12


def test_a_worker_that_dies_costs_its_cell_alone(ray_session) -> None:
    from simulations.bench.schedule import make_workers
    from simulations.engine.ray_pool import PACKAGES

    with make_workers("ray", threads=1, gpus=0.0, limit=None) as workers:
        assert workers.room == 2
        dead = workers._task.remote(workers._path, PACKAGES, "os:_exit", (1,))
        ticket, reason = workers.first([dead])
        assert ticket == dead and reason is not None and reason.startswith("its worker died")
        alive = workers._task.remote(workers._path, PACKAGES, "os:getpid", ())
        assert workers.first([alive])[1] != os.getpid()
    with pytest.raises(FedmetaError, match=r"engine.threads = 3"), make_workers("ray", 3, 0.0, None):
        pass


def test_csv_holds_a_line_a_cell(played) -> None:
    place, report = played
    with (place / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 12 and {line["state"] for line in lines} == {"done"}
    for line, outcome in zip(lines, report.outcomes, strict=True):
        assert float(line["score"]) == outcome.values["score"] and line["key"] == outcome.cell.key
    config = json.loads((place / "cells" / lines[-1]["key"] / "config.json").read_text())
    assert config["attack"]["method"]["name"] == "sign_flip" and config["seed"] == 7


def test_the_page_stands_alone_and_says_how_it_was_made(played) -> None:
    place, _ = played
    text = (place / "report.html").read_text()
    tags = Tags()
    tags.feed(text.removeprefix("<!doctype html>"))
    assert tags.open == [] and tags.fetched == [] and "url(" not in text and "@import" not in text
    for sentence in (
        "were not in the file and added",
        "All defences take the same server step: sgd with lr = 0.5",
        "Rules assume f = 1",
        "The model of the last round counts",
        "no p is below 0.5",
    ):
        assert sentence in " ".join(text.split()), sentence
    assert text.count('<svg class="panel"') == 6  # two attacks, three defences, over the rounds
    assert not any(word in text for word in (str(place), "2026", "UTC"))


def test_labels_cannot_become_markup(waves: dict[str, Any], tmp_path: Path) -> None:
    waves |= {"seeds": [0], "attacks": [], "defences": [{"label": "<b>x</b>", "aggregator": "median"}]}
    bench(waves, tmp_path, engine="inline")
    text = (tmp_path / "report.html").read_text()
    assert "<b>x</b>" not in text and "&lt;b&gt;x&lt;/b&gt;" in text


def test_a_model_that_diverged_is_the_worst_and_no_number(waves: dict[str, Any], tmp_path: Path) -> None:
    waves |= {"seeds": [0], "set": {"server.rounds": 30}, "defences": []}
    report = bench(waves, tmp_path, engine="inline")
    assert [row.diverged for row in report.rows] == [(), (0,)] and report.worst[0].by_score == "sign_flip"
    assert ">diverged<" in (tmp_path / "report.html").read_text()
    json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)  # neither NaN nor Infinity


def test_a_failing_cell_is_reported_and_the_rest_goes_on(waves: dict[str, Any], tmp_path: Path) -> None:
    """fltrust's root tasks are looked for when a run begins, and there are no validation clients."""
    waves["base"]["partition"]["validation_clients"] = 0
    waves["defences"].append({"aggregator": "fltrust", "root": "validation"})
    report = bench(waves, tmp_path, engine="inline")
    assert report.count("done") == 12 and report.count("failed") == 4
    failed = [outcome for outcome in report.outcomes if outcome.state == "failed"]
    assert {outcome.cell.defence for outcome in failed} == {"fltrust"}
    assert all("validation" in (outcome.reason or "") for outcome in failed)
    assert "Traceback" in (tmp_path / "cells" / f"{failed[0].cell.key}.failure.txt").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "failed: none, fltrust, seed 0" in page and "title=" in page
    before = bytes_of(tmp_path)
    bench(report.plan, tmp_path, engine="inline")
    assert bytes_of(tmp_path) == before


def test_a_twin_that_failed_fails_what_is_measured_against_it(tmp_path: Path) -> None:
    """No data: every cell of the set-up fails, with its reason, and the other set-up is whole."""
    from simulations.bench.schedule import InThisProcess, jobs_of, play_all

    raw = {
        "base": {"data": {"name": "omniglot", "path": str(tmp_path / "nowhere")}, "learner": {"name": "fomaml"}},
        "seeds": [0],
        "attacks": [{"method": "badnets"}],
    }
    failed = play_all(jobs_of(make_plan(read_grid(raw)), tmp_path), InThisProcess(), lambda cell, reason: None)
    first, second = failed.values()
    assert second.startswith("its twin without attack failed") and second.endswith(first)


def test_two_benches_do_not_share_a_directory(played) -> None:
    import fcntl

    place, report = played
    with (place / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(FedmetaError, match="another bench works in"):
            bench(report.plan, place, engine="inline")


def test_an_estimate_is_timed_before_and_read_off_finished_cells_after(played, tmp_path: Path) -> None:
    place, report = played
    before, after = estimate(report.plan, tmp_path), estimate(report.plan, place)
    assert (before.runs, before.finished) == (12, 0) and before.seconds is not None and 0 < before.seconds < 60
    assert (after.finished, after.seconds) == (12, 0.0) and list(tmp_path.iterdir()) == []


def write_long(folder: Path, waves: dict[str, Any]) -> Path:
    """The grid as a JSON-like TOML file, with fewer and longer cells."""
    lines = ['name = "waves"', "seeds = [0, 7]", "f = 1"]
    for section, values in waves["base"].items():
        lines.append(f"[base.{section}]")
        lines += [f"{key} = {_toml(value)}" for key, value in values.items()]
    lines += ["[set]", '"server.rounds" = 20', '"server.optimiser.lr" = 0.05']
    for axis in ("attacks", "defences"):
        for entry in waves[axis][:1]:
            lines += [f"[[{axis}]]", *(f"{key} = {_toml(value)}" for key, value in entry.items())]
    (folder / "grid.toml").write_text("\n".join(lines))
    return folder / "grid.toml"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)


def start(grid: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CODE, "bench", str(grid), "--out", str(out), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1", "RAY_ADDRESS": ""},
        start_new_session=True,
    )


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(waves: dict[str, Any], tmp_path: Path) -> None:
    """kill -9 in the middle of the first cell, and later; then the same command again."""
    grid, out = write_long(tmp_path, waves), tmp_path / "killed"
    moments = (
        lambda: any(out.glob("cells/*/checkpoints/last.safetensors")),
        lambda: len(list(out.glob("cells/*/results.json"))) >= 3,
    )
    for reached in moments:
        process = start(grid, out, "--engine", "inline")
        wait_for(reached, process)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL and not (out / "results.csv").exists()
    done = {path: path.stat().st_mtime_ns for path in out.glob("cells/*/results.json")}
    whole = bench(grid, tmp_path / "whole", engine="inline")
    assert bench(grid, out, engine="inline").rows == whole.rows and len(done) >= 3
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


def test_a_cell_that_was_killed_before_it_was_born_is_begun_anew(waves: dict[str, Any], tmp_path: Path) -> None:
    """Between making its directory and writing its configuration."""
    waves |= {"seeds": [0], "attacks": [], "defences": []}
    [cell] = make_plan(read_grid(waves)).cells
    (tmp_path / "cells" / cell.key / "checkpoints").mkdir(parents=True)
    (tmp_path / "cells" / cell.key / ".lock").touch()
    assert bench(waves, tmp_path, engine="inline").count("done") == 1


@pytest.mark.slow
def test_killed_on_ray_its_workers_do_not_disturb_the_next_one(waves: dict[str, Any], tmp_path: Path) -> None:
    grid, out = write_long(tmp_path, waves), tmp_path / "killed"
    for finished in (0, 3):
        process = start(grid, out)
        wait_for(lambda n=finished: len(list(out.glob("cells/*/metrics.jsonl"))) > n, process)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    process = start(grid, out)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    bench(grid, tmp_path / "whole", engine="inline")
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(waves: dict[str, Any], tmp_path: Path) -> None:
    grid, out = write_long(tmp_path, waves), tmp_path / "stopped"
    process = start(grid, out, "--engine", "inline")
    wait_for(lambda: any(out.glob("cells/*/results.json")), process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and "the same command goes on" in " ".join(output.split())
    states = {cell["state"] for cell in json.loads((out / "results.json").read_text())["cells"]}
    assert states == {"done", "pending"} and "is not finished" in (out / "report.html").read_text()
