"""Every learner in whole runs: loop and vmap, each engine, each unit of privacy, masked sums, every aggregator."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmeta.errors import ConfigurationError
from fedmeta.learners import LEARNERS
from fedmeta.privacy.offers import NO_EXAMPLE_LEVEL, NO_TASK_LEVEL
from fedmeta.workload import Workload
from server.configuration import load
from server.report.calibration import figures_in_words
from server.rounds import RunResult, run_experiment
from server.rundir import RunDir
from server.secure_aggregation import secured
from simulations import InlineGrid, simulate
from strategies import AGGREGATORS

MEDIAN = 0.2982
"""Variance of the median of four standard normal numbers."""
CLIENTS, TASKS, RATE, CLIP = 4, 2, 0.1, 0.002
GLYPHS: dict[str, Any] = {
    "name": "walk",
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
    "partition": {"name": "alphabet", "validation_clients": 0},
    "task": {"ways": 3, "shots": 1, "queries": 2},
    "model": {"name": "mlp", "hidden": [10], "normalisation": "none"},
    "client": {"steps": 1, "tasks_per_step": TASKS, "execution": "loop", "optimiser": {"name": "sgd", "lr": RATE}},
    "server": {"rounds": 1, "sampling": {"name": "fixed", "clients": CLIENTS}},
    "evaluation": {"episodes": 1, "pooled_episodes": 2, "every": 10},
}
NAMES = [name for name in LEARNERS.entries() if "classification" in LEARNERS.get(name).serves]
"""`emaml` alone learns policies only: tests/simulations/test_policies.py."""
SETTINGS: dict[str, dict[str, Any]] = {
    "imaml": {"inner_lr": 0.1, "inner_steps": 3, "cg_steps": 2},
    "matchingnet": {"full_context": True, "processing_steps": 2},
    "lstm_meta": {"inner_lr": 0.1, "inner_steps": 2},
    "abml": {"inner_lr": 0.1, "test_samples": 2},
    # Adam divides a gradient by its own size, and so magnifies what rounding differs by.
    "reptile": {"inner_steps": 2, "inner_optimiser": "sgd", "inner_lr": 0.1},
}
NOISY = {"noise_multiplier": 1.0, "clip_norm": CLIP, "delta": 1e-2}
RULES: dict[str, dict[str, Any]] = {
    name: {} for name in AGGREGATORS.entries() if name not in ("mean", "deepsight", "fltrust")
} | {
    **{key: {"f": 1} for key in ("trimmed_mean", "krum", "multi_krum", "bulyan", "dnc")},
    "rlr": {"threshold": 3},
    "fldetector": {"window": 2},
    "fltrust": {},
    "deepsight": {"samples": 50, "seeds": 1, "head": ["head.weight", "head.bias"]},
}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def configuration(learner: str, **tables: dict[str, Any]) -> dict[str, Any]:
    """The small experiment with a learner, and tables changed in part."""
    raw = {**GLYPHS, "learner": {"name": learner, **SETTINGS.get(learner, {})}}
    return {**raw, **{name: {**raw.get(name, {}), **table} for name, table in tables.items()}}


def run(raw: dict[str, Any], place: Path) -> RunResult:
    """A run without its report, which takes longer to draw than these learn."""
    experiment = load(raw)
    grid = InlineGrid("clients.app:app", len(Workload(experiment).federation.clients))
    rundir = RunDir.create(place, experiment)
    try:
        return run_experiment(secured(grid, experiment, simulated=True), experiment, rundir, simulated=True)
    finally:
        rundir.close()


def refusal(raw: dict[str, Any]) -> str | None:
    """Why an experiment cannot be; None where it can."""
    try:
        load(raw)
    except ConfigurationError as error:
        return str(error)
    return None


def moved(found: RunResult) -> torch.Tensor:
    """What the rounds did to the shared entries, `[D]`."""
    return found.vector - Workload(RunDir.open(found.path, exclusive=False).experiment).initial_vector()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunResult]:
    """A learner's run in a loop, behind the mean, without anything else: what others are compared with."""
    known: dict[str, RunResult] = {}

    def of(learner: str) -> RunResult:
        if learner not in known:
            known[learner] = run(configuration(learner), tmp_path_factory.mktemp("plain") / learner)
        return known[learner]

    return of


@pytest.mark.parametrize("learner", NAMES)
def test_it_learns_and_says_how_far_it_can_be_believed(plain, learner: str) -> None:
    found = plain(learner)
    assert not found.failed_rounds and not found.results["last"]["failed"] and moved(found).norm() > 0
    for split in ("test", "pooled"):
        judged = found.evaluation(split)
        assert judged is not None and judged.ece_after is not None and judged.brier_after is not None
        assert 0 <= judged.ece_after <= 1 and 0 <= judged.brier_after.mean <= 2 and judged.loss_after.mean > 0
        assert list(figures_in_words(judged)) == ["NLL", "Brier", "ECE, 15 bins"]


@pytest.mark.parametrize("learner", NAMES)
def test_vmap_is_the_loop(plain, tmp_path: Path, learner: str) -> None:
    vmap, reference = (
        run(configuration(learner, client={"execution": "vmap"}), tmp_path / "vmap"),
        moved(plain(learner)),
    )
    assert (moved(vmap) - reference).norm() < 1e-3 * reference.norm()


@pytest.mark.parametrize("learner", NAMES)
def test_under_secure_aggregation_it_is_the_same(plain, tmp_path: Path, learner: str) -> None:
    """But for the grid on which masked numbers lie."""
    secure, reference = (
        run(configuration(learner, secagg={"enabled": True}), tmp_path / "secure"),
        moved(plain(learner)),
    )
    assert not secure.failed_rounds and secure.history[0]["groups"]
    assert 0 < (moved(secure) - reference).norm() < 1e-3 * reference.norm()


@pytest.mark.parametrize("learner", NAMES)
def test_the_client_is_hidden(plain, tmp_path: Path, learner: str) -> None:
    """The model moves by the noise of z C on a sum, shared among the clients: what is clipped is small beside it."""
    found = run(configuration(learner, privacy={**NOISY, "unit": "client"}), tmp_path / "private")
    expected = CLIP * math.sqrt(len(found.vector)) / CLIENTS
    assert moved(found).norm().item() == pytest.approx(expected, rel=0.03)
    said = found.results["privacy"]
    assert said["unit"] == "client" and said["releases"] == 1 and 0 < said["epsilon"] < math.inf
    assert moved(plain(learner)).norm() > CLIP, "there was something to clip"


@pytest.mark.parametrize("learner", NAMES)
def test_the_task_is_hidden_or_the_unit_refused_behind_a_robust_rule(tmp_path: Path, learner: str) -> None:
    """Each client adds z C to its sum of clipped task gradients, and takes one step; or, refused that, to its update.

    The server takes the median, by whose variance the noise in the model tells that it did.
    """
    server, scale = {"aggregator": {"name": "median"}}, RATE / TASKS
    raw = configuration(learner, server=server, privacy={**NOISY, "unit": "task", "placement": "local"})
    if learner in NO_TASK_LEVEL:
        with pytest.raises(ConfigurationError, match=r"only the client as a whole can be hidden\. Use the client unit"):
            load(raw)
        raw["privacy"]["unit"], scale = "client", 1.0
    found = run(raw, tmp_path / "private")
    assert moved(found).norm().item() == pytest.approx(scale * CLIP * math.sqrt(MEDIAN * len(found.vector)), rel=0.03)
    said = found.results["privacy"]
    assert said["unit"] == raw["privacy"]["unit"] and said["releases"] == 1 and 0 < said["epsilon"] < math.inf


def test_the_page_says_which_units_a_learner_offers() -> None:
    """docs/learners.md, row by row, against what an experiment is refused."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "learners.md").read_text()
    rows = {found[1]: found[2] for found in re.finditer(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", page, re.MULTILINE)}
    assert set(rows) == set(LEARNERS.entries())
    for learner in NAMES:
        offered = set()
        for unit in ("client", "task", "example"):
            said = refusal(configuration(learner, privacy={**NOISY, "unit": unit, "placement": "local"}))
            if said is None:
                offered.add(unit)
            else:
                known = {"task": NO_TASK_LEVEL, "example": NO_EXAMPLE_LEVEL}[unit]
                assert known[learner] in said, f"{learner}, {unit}: refused for another reason"
        assert offered == set(re.findall(r"client|task(?!\.)|example", rows[learner])), learner


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["loop", "vmap"])
@pytest.mark.parametrize("learner", NAMES)
def test_ray_is_one_process_to_the_bit(tmp_path: Path, ray_session: None, learner: str, execution: str) -> None:
    raw = configuration(learner, client={"execution": execution}, server={"rounds": 2})
    inline = run(raw, tmp_path / "inline")
    ray = simulate(raw, engine="ray", out=tmp_path / "ray", overrides={"engine.actors": 2}, report=False)
    assert not ray.failed_rounds
    if execution == "loop":
        assert inline.model_hash == ray.model_hash and inline.results["last"] == ray.results["last"]
    else:  # which clients are batched together differs
        assert (moved(ray) - moved(inline)).norm() < 1e-3 * moved(inline).norm()


@pytest.mark.slow
@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("unit", ["none", "client", "task"])
def test_every_rule_takes_every_learner(tmp_path: Path, rule: str, unit: str) -> None:
    """Under noise of the clients' own as without: a round ends with another model, or says why the rule kept it."""
    server: dict[str, Any] = {"rounds": 2, "sampling": {"name": "fixed", "clients": 8}}
    partition = {"validation_clients": 2} if rule == "fltrust" else {}
    if rule == "fltrust":
        server["root"] = "validation"
    privacy = {} if unit == "none" else {**NOISY, "unit": unit, "placement": "local"}
    for learner in NAMES:
        if unit == "task" and learner in NO_TASK_LEVEL:
            continue
        server["aggregator"] = {"name": rule, **RULES[rule]}
        raw = configuration(learner, server=server, partition=partition, privacy=privacy)
        if rule == "deepsight":  # it reads the last layer's outputs, which must mean the same class in every task
            own = {"name": "iid", "clients": 10, "test_clients": 1, "validation_clients": 0, "min_examples": 1}
            raw |= {"partition": own, "task": {"kind": "own", "support_fraction": 0.5}}
            raw["client"] = {**raw["client"], "tasks_per_step": 1}
            said = refusal(raw)
            if LEARNERS.get(learner).head == "embedding" or (unit == "task" and learner == "perfedavg"):
                assert said is not None and ("or there is no head" in said or "are one task" in said)
                continue
            assert said is None, (learner, said)
        found = run(raw, tmp_path / learner)
        assert not found.failed_rounds and torch.isfinite(found.vector).all(), learner
        assert moved(found).norm() > 0 or all(record["event"] for record in found.history), learner
