"""Private runs from start to statement: empty rounds, budgets, resumption, every unit and placement."""

import importlib.util
import json
import warnings
from dataclasses import replace

import pytest
import torch

from fedmeta.errors import ConfigurationError
from fedmeta.privacy import Adjacency, Event, Gaussian, NoAmplification, Poisson, tightest
from fedmeta.privacy.ledger import Ledger
from fedmeta.privacy.plan import central_plan
from fedmeta.workload import Workload
from server.configuration import load
from server.privacy import in_one_line, privacy_statement
from server.report.confidential import privacy_facts
from server.rounds import run_experiment
from server.rundir import RunDir
from simulations import InlineGrid, simulate

RAW = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 20, "validation_clients": 1, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "reptile", "inner_lr": 0.01, "inner_steps": 2, "test_steps": 1},
    "client": {"steps": 1, "tasks_per_step": 2, "execution": "loop"},
    "server": {"rounds": 30, "sampling": {"name": "poisson", "rate": 0.02}, "optimiser": {"name": "sgd", "lr": 0.01}},
    "evaluation": {"every": 100, "episodes": 2, "validation_episodes": 2, "pooled_episodes": 2},
}
CENTRAL = {"unit": "client", "noise_multiplier": 1.0, "delta": 1e-3}
LOCAL_TASK = {"unit": "task", "placement": "local"}
FIXED = {"server.sampling": {"name": "fixed", "clients": 4}, "server.rounds": 3}


def run(out, privacy, overrides=None, report=False, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return simulate(
            {**RAW, "privacy": privacy}, engine="inline", overrides=overrides, out=out, report=report, **more
        )


def hashes(path):
    return [json.loads(line).get("kind") for line in (path / "privacy.jsonl").read_text().splitlines()]


def test_empty_rounds_release_noise_and_count(tmp_path):
    """F10: 20 clients, q = .02: two rounds in three are empty."""
    seen = []

    def watch(record):
        seen.append((record["sampled"], record["train"]["update-norm"], record["event"]))

    found = run(tmp_path / "r", CENTRAL, report=True, observers=[watch])
    empty = [norm for sampled, norm, _ in seen if not sampled]
    assert 10 < len(empty) < 30 and all(norm > 0 for norm in empty) and not any(event for *_, event in seen)
    assert not found.failed_rounds
    ledger = Ledger(tmp_path / "r" / "privacy.jsonl")
    assert [entry.round for entry in ledger.entries] == list(range(1, 31)) and ledger.unreleased == 0
    said = found.results["privacy"]
    assert said["epsilon"] == tightest([Event(Gaussian(1.0), Poisson(0.02), count=30)], 1e-3).epsilon
    assert said["releases"] == 30 and said["sampler"] == "Poisson, rate 0.02" and said["simulated"]
    report = (tmp_path / "r" / "report.html").read_text()
    assert f"{len(empty)} of 30 rounds drew no client" in report and "imulated privacy" in report


def test_without_noise_an_empty_round_leaves_the_model(tmp_path):
    seen = []
    found = run(
        tmp_path / "r",
        {**CENTRAL, "noise_multiplier": 0.0},
        report=True,
        observers=[lambda record: seen.append((bool(record["sampled"]), record["train"]["update-norm"] > 0))],
    )
    assert all(sampled == moved for sampled, moved in seen)
    assert found.results["privacy"]["epsilon"] is None
    assert "No guarantee" in (tmp_path / "r" / "report.html").read_text()


def test_the_denominator_is_fixed(tmp_path):
    """All clients clip to C: with q n = 4 expected, k clients that came give at most k C / 4, not C."""
    norms = []
    run(
        tmp_path / "r",
        {**CENTRAL, "noise_multiplier": 0.0, "clip_norm": 1e-3},
        {"server.sampling.rate": 0.2, "server.rounds": 8},
        observers=[lambda record: norms.append((len(record["sampled"]), record["train"]["update-norm"]))],
    )
    assert all(norm <= count * 1e-3 / 4 * (1 + 1e-5) for count, norm in norms)
    assert any(norm > 1e-3 * 0.9 * count / 4 for count, norm in norms if count)


def test_a_budget_ends_the_run_before_the_round_that_would_exceed_it(tmp_path):
    found = run(tmp_path / "r", {**CENTRAL, "budget": 0.3}, {"server.sampling.rate": 0.02})
    said = found.results["privacy"]
    assert 0 < found.rounds < 30 and said["epsilon"] <= 0.3 and "would exceed the privacy budget" in said["stopped"]
    more = tightest([Event(Gaussian(1.0), Poisson(0.02), count=found.rounds + 1)], 1e-3).epsilon
    assert more > 0.3, "not a round too early"
    assert found.history[-1]["validation"], "the last round is judged, though it was not planned to be the last"
    assert len(hashes(tmp_path / "r")) == 2 * found.rounds


def test_a_local_budget_leaves_out_clients_that_have_spent_it_and_ends_when_too_few_are_left(tmp_path):
    privacy = {"unit": "client", "placement": "local", "noise_multiplier": 8.0, "delta": 1e-3, "budget": 1.2}
    found = run(tmp_path / "r", privacy, {**FIXED, "server.rounds": 40})
    ledger = Ledger(tmp_path / "r" / "privacy.jsonl")
    counts = [sum(entry.client == client for entry in ledger.entries) for client in range(20)]
    one = Event(Gaussian(8.0), NoAmplification(), Adjacency.REPLACE_ONE)
    allowed = max(k for k in range(10) if tightest([replace(one, count=k)], 1e-3).epsilon <= 1.2)
    assert found.rounds < 40 and max(counts) == allowed and sum(count < allowed for count in counts) < 4
    assert found.results["privacy"]["epsilon"] <= 1.2 and "clients may go on" in (
        found.results["privacy"]["stopped"] or ""
    )


def test_resumed_is_uninterrupted_and_the_ledger_goes_on(tmp_path):
    privacy = {**CENTRAL, "clipping": "adaptive"}
    overrides = {"server.sampling.rate": 0.2, "server.rounds": 6}
    whole = run(tmp_path / "whole", privacy, overrides)

    def stop(record):
        if record["round"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", privacy, overrides, observers=[stop])
    resumed = simulate(resume=tmp_path / "part", engine="inline", report=False)
    assert torch.equal(whole.vector, resumed.vector)
    clips = [[record["train"]["clip-norm"] for record in result.history] for result in (whole, resumed)]
    assert clips[0] == clips[1] and len(set(clips[0])) == 6
    assert resumed.results["privacy"]["epsilon"] == whole.results["privacy"]["epsilon"]
    assert (tmp_path / "part" / "privacy.jsonl").read_bytes() == (tmp_path / "whole" / "privacy.jsonl").read_bytes()


def test_a_crash_before_the_first_checkpoint_stays_spent(tmp_path, monkeypatch):
    from server.rundir import RunDir

    def crash(*_):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "append", crash)
        with pytest.raises(OSError, match="power cut"):
            run(tmp_path / "r", CENTRAL, {"server.rounds": 2})
    with pytest.raises(Exception, match="not empty"):
        run(tmp_path / "r", CENTRAL, {"server.rounds": 2})
    resumed = simulate(resume=tmp_path / "r", engine="inline", report=False)
    assert resumed.results["privacy"]["releases"] == 3, "round 1 was released twice"


@pytest.mark.parametrize(
    ("privacy", "overrides", "sampler", "adjacency", "releases"),
    [
        ({**CENTRAL}, FIXED, "4 of 20 without replacement", "replace-one", 3),
        ({**CENTRAL}, {**FIXED, "server.sampling.clients": 20}, "no amplification", "replace-one", 3),
        ({**CENTRAL, "per_layer": True}, FIXED, "4 of 20", "replace-one", 3),
        ({**CENTRAL, "placement": "local"}, FIXED, "no amplification", "replace-one", None),
        ({**CENTRAL, "unit": "task"}, FIXED, "clients at rate 0.2, then all tasks", "replace-one", 3),
        ({**CENTRAL, "unit": "task", "task_pool": 8}, FIXED, "then their tasks at rate 0.25", "add-remove", 3),
        ({**CENTRAL, **LOCAL_TASK}, FIXED, "no amplification", "replace-one", None),
        ({**CENTRAL, **LOCAL_TASK, "task_pool": 8}, FIXED, "Poisson, rate 0.25", "add-remove", None),
        ({**CENTRAL, "unit": "example", "placement": "local"}, FIXED, "no amplification", "replace-one", None),
    ],
)  # fmt: skip
def test_every_unit_and_placement(tmp_path, privacy, overrides, sampler, adjacency, releases):
    found = run(tmp_path / "r", privacy, overrides)
    said = found.results["privacy"]
    assert not found.failed_rounds and sampler in said["sampler"] and said["adjacency"] == adjacency
    assert torch.isfinite(found.vector).all() and said["epsilon"] > 0
    each = {"client": 1, "task": 1, "example": 4}[privacy["unit"]]
    if releases is None:
        most = max(sum(client in record["sampled"] for record in found.history) for client in range(20))
        assert said["releases"] == each * most and said["client"] is not None
    else:
        assert said["releases"] == releases and said["client"] is None
    assert set(found.history[0]["train"]) <= {"epsilon-rdp", "update-norm", "client-update-norm", "clip-norm"}
    assert said["other_unit"]["unit"] == ("client" if privacy["unit"] != "client" else "task")
    if privacy["unit"] == "task":
        assert said["other_unit"]["epsilon"] > said["epsilon"]
    again = run(tmp_path / "again", privacy, overrides)
    assert torch.equal(again.vector, found.vector), "a simulation repeats"


def test_a_task_beside_a_client_claim_is_exchanged(tmp_path):
    """Two clip norms, also where the client's own claim is for one: 4.39 for being there, 10.01 for what it holds."""
    both = {
        sampling: run(tmp_path / sampling, CENTRAL | {"delta": 1e-5}, {"server.rounds": 1, "server.sampling": settings})
        for sampling, settings in {
            "coins": {"name": "poisson", "rate": 1.0},
            "all": {"name": "fixed", "clients": 20},
        }.items()
    }
    said = {name: found.results["privacy"] for name, found in both.items()}
    assert [said[name]["epsilon"] for name in ("coins", "all")] == pytest.approx([4.387, 10.008], abs=1e-3)
    assert [said[name]["other_unit"]["epsilon"] for name in ("coins", "all")] == pytest.approx([10.008] * 2, abs=1e-3)


def test_a_target_is_kept_to(tmp_path):
    central = run(tmp_path / "c", {"unit": "client", "target_epsilon": 2.0, "delta": 1e-3}, FIXED)
    assert 1.96 <= central.results["privacy"]["epsilon"] <= 2.0
    local = run(
        tmp_path / "l",
        {"unit": "client", "placement": "local", "target_epsilon": 2.0, "delta": 1e-3},
        {**FIXED, "server.sampling.clients": 20},
    )
    assert 1.96 <= local.results["privacy"]["epsilon"] <= 2.0


def test_noise_after_another_aggregator_is_refused(tmp_path):
    from strategies import AGGREGATORS

    AGGREGATORS.register("also_mean", "strategies.aggregators.mean:Mean", "a plug-in")
    try:
        other = {"server.aggregator": {"name": "also_mean"}}
        with pytest.raises(ConfigurationError, match="calibrated to a sum"):
            run(tmp_path / "a", CENTRAL, {**FIXED, **other})
        assert run(tmp_path / "b", {**CENTRAL, "placement": "local"}, {**FIXED, **other}).rounds == 3
    finally:
        AGGREGATORS.entries().pop("also_mean")


def test_a_sampler_that_does_not_say_how_it_draws_is_refused():
    class Silent:
        """As plug-ins from before there was privacy."""

    with pytest.raises(ConfigurationError, match="does not say how it draws"):
        central_plan(load({**RAW, "privacy": CENTRAL}), Silent(), 20)


def test_capped_draws_need_pld_and_say_so(tmp_path, monkeypatch):
    capped = {"server.sampling": {"name": "capped_poisson", "rate": 0.2, "cap": 4}, "server.rounds": 2}
    if importlib.util.find_spec("dp_accounting"):
        assert run(tmp_path / "r", CENTRAL, capped).results["privacy"]["accountant"] == "pld"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"fedmeta\[accounting\]"):
        run(tmp_path / "s", {**CENTRAL, "noise_multiplier": None, "target_epsilon": 1.0}, capped)


@pytest.mark.parametrize(
    ("privacy", "overrides", "words"),
    [
        ({**CENTRAL, "accountant": "prv"}, FIXED, "PRV composes Poisson-sampled"),
        ({**CENTRAL, "accountant": "prv", "noise_multiplier": 0.01}, {"server.sampling.rate": 1.0}, "use rdp"),
        ({**CENTRAL, "accountant": "prv", "noise_multiplier": 0.01, "budget": 9.0}, {}, "use rdp"),
        ({**CENTRAL, "placement": "local", "accountant": "prv", "noise_multiplier": 0.01}, FIXED, "use rdp"),
        ({**CENTRAL, "accountant": "rdp"}, {"server.sampling": {"name": "capped_poisson"}}, "PLD has"),
    ],
)
def test_a_run_that_no_chosen_accountant_can_bound_does_not_start(tmp_path, privacy, overrides, words):
    def never(record):
        raise AssertionError("a round was trained")

    with pytest.raises(ConfigurationError, match=f"no valid bound.*{words}"):
        run(tmp_path / "r", privacy, overrides, observers=[never])


def test_a_bound_that_a_budget_keeps_within_reach_is_no_reason_to_refuse(tmp_path):
    privacy = {**CENTRAL, "accountant": "prv", "budget": 6.0}
    assert run(tmp_path / "r", privacy, {"server.sampling.rate": 1.0, "server.rounds": 2000}).rounds < 9


@pytest.mark.parametrize("placement", ["central", "local"])
def test_a_bound_that_is_lost_after_the_run_is_told_and_not_raised(tmp_path, monkeypatch, placement):
    from fedmeta.privacy.accountants import ACCOUNTANTS

    found = run(tmp_path / "r", {**CENTRAL, "placement": placement, "accountant": "prv"}, {"server.rounds": 2})
    assert found.results["privacy"]["epsilon"] > 0
    monkeypatch.setattr(type(ACCOUNTANTS["prv"]), "refusal", lambda self, event: "PRV is gone")
    rundir = RunDir.open(tmp_path / "r", exclusive=False)
    said, facts = privacy_statement(rundir), privacy_facts(rundir, list(rundir.metrics()))
    assert facts is not None and said["epsilon"] is None and "PRV is gone" in said["no_bound"]
    assert (said["client"] is None) == (placement == "central")
    assert "no guarantee" in in_one_line(said) and any("PRV is gone" in line for line in facts["warnings"])


def test_metrics_are_withheld_unless_shared(tmp_path):
    found = run(tmp_path / "r", {**CENTRAL, "share_metrics": True}, FIXED)
    assert {"loss", "mse", "clipped-share"} <= set(found.history[0]["train"])
    assert any("share_metrics" in line for line in found.results["privacy"]["not_covered"])


def test_validation_clients_that_the_server_trains_on_are_not_covered(tmp_path):
    local = {**CENTRAL, "placement": "local"}
    root = {**FIXED, "server.aggregator": {"name": "fltrust"}, "server.root": "validation"}
    for name, more, words in (
        ("plain", FIXED, "no part in training"),
        ("root", root, "the server trains on their data"),
    ):
        said = run(tmp_path / name, local, more).results["privacy"]["not_covered"]
        (line,) = [line for line in said if "validation" in line]
        assert words in line


@pytest.mark.parametrize("privacy", [CENTRAL, {**CENTRAL, **LOCAL_TASK, "task_pool": 8}], ids=["central", "local"])
def test_ray_and_inline_agree_bit_for_bit(tmp_path, ray_session, privacy):
    small = {**FIXED, "server.rounds": 2}
    inline = run(tmp_path / "inline", privacy, small)
    ray = simulate(
        {**RAW, "privacy": privacy},
        engine="ray",
        overrides={**small, "engine.actors": 2},
        out=tmp_path / "ray",
        report=False,
    )
    assert torch.equal(inline.vector, ray.vector)
    assert (tmp_path / "inline" / "privacy.jsonl").read_bytes() == (tmp_path / "ray" / "privacy.jsonl").read_bytes()


def test_a_deployed_server_draws_noise_and_clients_that_nobody_can_foresee(tmp_path):
    experiment = load({**RAW, "privacy": CENTRAL}, {"server.sampling.rate": 0.5, "server.rounds": 2})
    found = []
    for name in ("one", "two"):
        with InlineGrid("clients.app:app", len(Workload(experiment).federation.clients)) as grid:
            found.append(run_experiment(grid, experiment, RunDir.create(tmp_path / name, experiment)))
    assert not torch.equal(found[0].vector, found[1].vector)
    assert found[0].history[0]["sampled"] != found[1].history[0]["sampled"]
    said = found[0].results["privacy"]
    assert (
        said["title"] == "Privacy" and "trusted with both" in said["trust"] and "operating system" in said["enforced"]
    )


def test_pools_under_vmap_are_taken_one_by_one(tmp_path):
    privacy = {**CENTRAL, **LOCAL_TASK, "task_pool": 20}
    more = {**FIXED, "server.rounds": 2}
    loop = run(tmp_path / "loop", privacy, more)
    vmap = run(tmp_path / "vmap", privacy, {**more, "client.execution": "vmap"})
    assert torch.equal(loop.vector, vmap.vector) and not vmap.failed_rounds
