"""`flwr run .` on the checkout, and the bundle that `flwr build` makes of it."""

import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.cli import local_superlink

from fedmeta.privacy.ledger import Ledger
from fedmeta.workload import Workload
from server.rundir import RunDir
from simulations import simulate
from simulations.benchmarks.flower_runtime import end_superlink, flower_environment

NOT_SUBMITTED = "Failed to start local SuperLink"
PATIENCE = 240
"""Seconds, for which a run may be in the making on a busy machine."""
pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

RAW = """
name = "under-flower"
[data]
name = "sinusoid"
[partition]
name = "iid"
clients = 3
validation_clients = 1
test_clients = 1
[task]
ways = 1
shots = 5
[model]
name = "sinusoid"
[learner]
name = "maml"
inner_lr = 0.01
[client]
steps = 2
tasks_per_step = 2
execution = "loop"
[server]
rounds = 3
sampling = { name = "fixed", clients = 2 }
optimiser = { name = "adam", lr = 1e-3 }
[evaluation]
every = 2
episodes = 2
validation_episodes = 2
pooled_episodes = 2
"""


@pytest.fixture
def flower(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment of its own for Flower, whose SuperLink is ended afterwards."""
    home = tmp_path / "flwr-home"
    yield flower_environment(home)
    end_superlink(home)


def flwr(*words: str, environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["flwr", *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def run_app(run_config: Path, nodes: int, environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """`flwr run` on the checkout, again where Flower gave up on its own SuperLink before there was a run to submit.

    Flower gives that 15 s to start and a probe of it 0.4 s, which a busy machine exceeds; the list of runs then stays
    empty for ever.
    """
    federation = f"num-supernodes={nodes} client-resources-num-cpus=1"
    words = ["run", str(ROOT), "--run-config", str(run_config), "--federation-config", federation, "--stream"]
    deadline = time.monotonic() + PATIENCE
    while True:
        done = flwr(*words, environment=environment, cwd=cwd)
        said = " ".join((done.stdout + done.stderr).replace("│", " ").split())
        if NOT_SUBMITTED not in said or time.monotonic() >= deadline:
            return done


def last_run(environment: dict[str, str], cwd: Path, started: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The run that `flwr run` started, when it has finished: at once where it can be seen, however long it takes."""
    deadline, said = time.monotonic() + PATIENCE, "nothing"
    while time.monotonic() < deadline:
        try:
            found = flwr("list", "--format", "json", environment=environment, cwd=cwd)
        except subprocess.TimeoutExpired as slow:  # the machine is busy, and nothing is wrong yet
            said = str(slow)
            continue
        said = found.stdout + found.stderr
        runs = runs_in(found.stdout)
        if runs and runs[0]["status"].startswith("finished"):
            return runs[0]
        time.sleep(0.5)
    raise AssertionError(
        f"no finished run after {PATIENCE} s. `flwr list` said last:\n{said}\n`flwr run` ended with "
        f"{started.returncode} and said:\n{started.stdout}{started.stderr}"
    )


def runs_in(told: str) -> list[dict[str, str]]:
    """What `flwr list --format json` tells, the last run first; nothing while it has no JSON to give."""
    try:
        return list(json.loads(told or "{}").get("runs") or [])
    except json.JSONDecodeError:
        return []


def test_waiting_for_a_run_outlasts_an_empty_list_and_ends_with_the_words_of_flower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses = ([], [{"status": "running"}], [{"status": "finished:completed"}])
    answers = iter(["", "not yet", *(json.dumps({"runs": runs}) for runs in statuses)])

    def list_of_runs(*words: str, **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 0, next(answers, "a list without end"), "")

    monkeypatch.setitem(globals(), "flwr", list_of_runs)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    started = subprocess.CompletedProcess(["flwr", "run"], 1, "uploaded", "refused by the SuperLink")
    assert last_run({}, tmp_path, started)["status"] == "finished:completed"
    monkeypatch.setitem(globals(), "PATIENCE", 0.01)
    with pytest.raises(AssertionError, match=r"(?s)a list without end.*ended with 1.*refused by the SuperLink"):
        last_run({}, tmp_path, started)


def test_a_run_is_submitted_again_only_where_flower_submitted_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower's own words, as its code has them; any other failure is the run's, and stays."""
    source = (Path(local_superlink.__file__)).read_text(encoding="utf-8")
    assert source.count(f'"{NOT_SUBMITTED}') == 2
    box = "│ Error: Failed to start local │\n│ SuperLink within 15s. │"
    answers = [(1, box), (1, "Failed to start local SuperLink: exited with code 1"), (1, "refused"), (0, "never asked")]
    told = iter(answers)

    def run(*words: str, **_: object) -> subprocess.CompletedProcess[str]:
        code, said = next(told)
        return subprocess.CompletedProcess(words, code, "", said)

    monkeypatch.setitem(globals(), "flwr", run)
    assert run_app(tmp_path / "run.toml", 6, {}, tmp_path).stderr == "refused"


def test_flwr_run_gives_the_same_numbers_and_the_same_directory(tmp_path: Path, flower: dict[str, str]) -> None:
    (tmp_path / "e.toml").write_text(RAW)
    (tmp_path / "empty").mkdir()
    inline = simulate(tmp_path / "e.toml", engine="inline", out=tmp_path / "inline")
    config = f'config = "{tmp_path / "e.toml"}"\nout = "{tmp_path / "flower"}"\n'
    (tmp_path / "run.toml").write_text(config)
    done = run_app(tmp_path / "run.toml", 6, flower, tmp_path / "empty")
    run = last_run(flower, tmp_path / "empty", done)
    assert run["status"] == "finished:completed", done.stdout + done.stderr
    under = RunDir.open(tmp_path / "flower", exclusive=False)
    assert under.results()["model_hash"] == inline.model_hash
    assert under.results()["last"] == inline.results["last"] and under.results()["best"] == inline.results["best"]
    assert sorted(p.name for p in under.path.iterdir()) == sorted(p.name for p in inline.path.iterdir())


@pytest.mark.slow
def test_too_few_nodes_are_refused_with_the_right_number(tmp_path: Path, flower: dict[str, str]) -> None:
    """Flower's default of two nodes: the run fails, and its log says how many to ask for."""
    (tmp_path / "e.toml").write_text(RAW)
    (tmp_path / "empty").mkdir()
    (tmp_path / "run.toml").write_text(f'config = "{tmp_path / "e.toml"}"\nout = "{tmp_path / "few"}"\n')
    done = run_app(tmp_path / "run.toml", 2, flower, tmp_path / "empty")
    assert last_run(flower, tmp_path / "empty", done)["status"] == "finished:failed"
    assert "num-supernodes=6" in done.stdout + done.stderr


def test_a_bundle_holds_code_and_experiment_files_only(tmp_path: Path, flower: dict[str, str]) -> None:
    """F18: an environment, run directories and keys in the checkout must not travel to clients."""
    copy = tmp_path / "fedmeta"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "__pycache__", "*.egg-info", "runs"))
    planted = {
        "myenv/lib/python3.11/site-packages/deep/er/and/deep/er/still/x.py": "secret = 1",
        "runs/a/config.json": "{}",
        "runs/a/ledger.json": "{}",
        "runs/a/report.md": "x",
        "keys/client.toml": "key = 1",
        "keys/notes.md": "x",
        ".venv2/a.py": "x = 1",
    }
    for name, content in planted.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(content)
    done = flwr("build", "--app", str(copy), environment=flower, cwd=tmp_path)
    [bundle] = tmp_path.glob("*.fab")
    # Flower takes 10 MB; the code is a little over one.
    assert bundle.stat().st_size < 3_000_000, done.stdout
    names = zipfile.ZipFile(bundle).namelist()
    assert not [name for name in names if name.startswith(("myenv", "runs", "keys", ".venv", "tests", "docs"))]
    assert not [name for name in names if name.startswith("simulations/") and name.endswith(".py")], "no node runs it"
    for needed in (
        "server/app.py",
        "clients/app.py",
        "fedmeta/wire.py",
        "simulations/configs/demo.toml",
        "LICENSE",
        "README.md",
    ):
        assert needed in names


@pytest.mark.slow
def test_a_private_run_is_a_deployed_one(tmp_path: Path, flower: dict[str, str]) -> None:
    """Noise is not of the seed, clients keep ledgers of their own, and the report does not say 'simulated'."""
    privacy = '[privacy]\nunit = "client"\nplacement = "local"\nnoise_multiplier = 4.0\ndelta = 1e-3\n'
    (tmp_path / "e.toml").write_text(RAW + privacy)
    (tmp_path / "empty").mkdir()
    inline = simulate(tmp_path / "e.toml", engine="inline", out=tmp_path / "inline")
    (tmp_path / "run.toml").write_text(f'config = "{tmp_path / "e.toml"}"\nout = "{tmp_path / "flower"}"\n')
    done = run_app(
        tmp_path / "run.toml", 6, {**flower, "FEDMETA_LEDGERS": str(tmp_path / "ledgers")}, tmp_path / "empty"
    )
    run = last_run(flower, tmp_path / "empty", done)
    assert run["status"] == "finished:completed", done.stdout + done.stderr
    rundir = RunDir.open(tmp_path / "flower")
    said = rundir.results()["privacy"]
    assert said["title"] == "Privacy" and said["epsilon"] == inline.results["privacy"]["epsilon"]
    assert rundir.results()["model_hash"] != inline.model_hash
    releases = [len(Ledger(path).entries) for path in sorted((tmp_path / "ledgers").iterdir())]
    assert sum(releases) == 3 * 2 == len(rundir.ledger().entries), "the clients' own ledgers agree with the server's"


@pytest.mark.slow
def test_secure_aggregation_under_flwr_run(tmp_path: Path, flower: dict[str, str]) -> None:
    """Flower's runtime carries each client's session from message to message; the model is the same to rounding."""
    raw = RAW.replace("clients = 3\n", "clients = 5\n").replace("clients = 2 }", "clients = 5 }")
    (tmp_path / "e.toml").write_text(raw + "[secagg]\nenabled = true\n")
    (tmp_path / "empty").mkdir()
    inline = simulate(tmp_path / "e.toml", engine="inline", out=tmp_path / "inline")
    (tmp_path / "run.toml").write_text(f'config = "{tmp_path / "e.toml"}"\nout = "{tmp_path / "flower"}"\n')
    done = run_app(tmp_path / "run.toml", 8, flower, tmp_path / "empty")
    assert last_run(flower, tmp_path / "empty", done)["status"] == "finished:completed", done.stdout + done.stderr
    under = RunDir.open(tmp_path / "flower", exclusive=False)
    workload = Workload(under.experiment)
    found = workload.spec.flatten(under.load("last").params)
    moved = inline.vector - workload.initial_vector()
    assert (found - inline.vector).norm() < 1e-5 * moved.norm()
    assert under.results()["secagg"]["sums"] == 3 and under.results()["secagg"]["smallest_sum"] == 5
