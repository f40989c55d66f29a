"""An omniscient attacker around a grid: with Flower's own strategy, in our runs, and across an interruption."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedmeta.attacks import make_attack
from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from server.app import main
from server.configuration import from_run_config
from server.rundir import RunDir
from simulations import AdversarialGrid, InlineGrid, simulate

RAW = {
    "name": "attacked",
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 10, "validation_clients": 1, "test_clients": 2},
    "task": {"ways": 1, "shots": 5, "queries": 5},
    "model": {"name": "sinusoid"},
    "learner": {"name": "maml", "inner_lr": 0.01},
    "client": {"steps": 1, "tasks_per_step": 4, "execution": "loop", "optimiser": {"name": "sgd", "lr": 1.0}},
    "server": {"rounds": 8, "sampling": {"name": "fixed", "clients": 10}, "optimiser": {"name": "sgd", "lr": 0.02}},
    "evaluation": {"every": 20, "episodes": 20, "validation_episodes": 3, "pooled_episodes": 20},
}
FLIP = {"method": {"name": "sign_flip", "scale": 10.0}, "fraction": 0.2, "knowledge": "omniscient"}


def run(tmp_path: Path, name: str, attack: dict | None = None, raw: dict = RAW, report: bool = False, **options):
    experiment = {**raw, **({"attack": attack} if attack else {})}
    return simulate(experiment, out=tmp_path / name, engine="inline", report=report, **options)


def app_of_two_arrays() -> ClientApp:
    """Client k replies its model moved by k in `a`, by 2 k in `b`, and counts in integers."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        k = context.node_config["partition-id"]
        sent = message.content["arrays"]
        arrays = {"a": sent["a"].numpy() + k, "b": sent["b"].numpy() + 2 * k, "n": sent["n"].numpy() + 1}
        content = {"arrays": ArrayRecord({key: Array(value.astype(sent[key].dtype)) for key, value in arrays.items()})}
        return Message(RecordDict({**content, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    return app


def test_flowers_fedavg_over_many_arrays() -> None:
    """Four clients, the last malicious: -tau times the benign mean of (0, 1, 2) in every floating array, no other."""
    start = {"a": np.ones((2, 3), np.float32), "b": np.zeros(2, np.float64), "n": np.array([7])}
    with InlineGrid(app_of_two_arrays(), 4) as inner:
        grid = AdversarialGrid(inner, make_attack("ipm", tau=5), malicious={3})
        strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=4)
        arrays = ArrayRecord({key: Array(value) for key, value in start.items()})
        result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=2)
    # A round moves a by (0 + 1 + 2 - 5 * 1) / 4 = -0.5, and b by twice that.
    assert np.allclose(result.arrays["a"].numpy(), 0.0) and result.arrays["a"].dtype == "float32"
    assert np.allclose(result.arrays["b"].numpy(), -2.0) and result.arrays["b"].dtype == "float64"
    assert [(done.round, done.attackers, done.idle) for done in grid.history] == [(1, (3,), None), (2, (3,), None)]


def test_colluders_know_their_own_updates_and_a_schedule_ends() -> None:
    with InlineGrid(app_of_two_arrays(), 4) as inner:
        grid = AdversarialGrid(inner, make_attack("sign_flip"), malicious={1, 3}, knowledge="colluding", stop=1)
        arrays = ArrayRecord({"a": Array(np.zeros(1)), "b": Array(np.zeros(1)), "n": Array(np.array([0]))})
        strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=4)
        result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=2)
    # Round 1: (0 + 2 - 2 - 2) / 4 = -0.5; round 2 is honest: (0 + 1 + 2 + 3) / 4 = 1.5.
    assert np.allclose(result.arrays["a"].numpy(), 1.0) and len(grid.history) == 1


def test_without_anything_to_know_the_attackers_stay_honest_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    with InlineGrid(app_of_two_arrays(), 3) as inner:
        arrays = ArrayRecord({"a": Array(np.zeros(1)), "b": Array(np.zeros(1)), "n": Array(np.array([0]))})
        for attack, malicious, words in (
            (make_attack("ipm"), {0, 1, 2}, "no update of this round is known"),
            (make_attack("alie"), {1, 2}, "alie needs at least 2 known updates and has 1"),
        ):
            grid = AdversarialGrid(inner, attack, malicious)
            strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=3)
            result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=2)
            assert np.allclose(result.arrays["a"].numpy(), 2.0)
            assert all(words in (done.idle or "") for done in grid.history)
            assert sum(words in record.message for record in caplog.records) == 1, "the same reason is told once"


def test_what_it_cannot_do_is_refused() -> None:
    with InlineGrid(app_of_two_arrays(), 2) as inner:
        with pytest.raises(ConfigurationError, match="does not act on updates"):
            AdversarialGrid(inner, make_attack("none"), {0})
        arrays = ArrayRecord({"a": Array(np.zeros(1)), "b": Array(np.zeros(1)), "n": Array(np.array([0]))})
        message = Message(RecordDict({"arrays": arrays}), next(iter(inner.get_node_ids())), "train")
        with pytest.raises(ConfigurationError, match=r"malicious = \[30\] are no clients .* 0 to 1"):
            AdversarialGrid(inner, make_attack("ipm"), {0, 30}).send_and_receive([message])
        with pytest.raises(ConfigurationError, match="does not act on updates"):
            make_attack("badnets")(np.ones((3, 2)), n_malicious=1)
        inner.in_clear = False
        with pytest.raises(ConfigurationError, match="masked"):
            AdversarialGrid(inner, make_attack("ipm"), {0})


def test_two_attackers_of_ten_break_the_mean_on_sine_waves(tmp_path: Path) -> None:
    clean = run(tmp_path, "clean")
    broken = run(tmp_path, "broken", FLIP)
    after = {name: done.evaluation("pooled").after.mean for name, done in (("clean", clean), ("broken", broken))}
    assert after["broken"] > 1.5 * after["clean"], after
    attackers = [record["attackers"] for record in broken.history]
    assert all(len(ids) == 2 for ids in attackers) and len({tuple(ids) for ids in attackers}) == 1
    assert not any("attackers" in record for record in clean.history)


def test_the_same_seed_gives_the_same_run_and_another_attack_another(tmp_path: Path) -> None:
    noise = {**FLIP, "method": {"name": "gaussian", "std": 0.01}}
    one, again = run(tmp_path, "one", noise), run(tmp_path, "again", noise)
    assert one.model_hash == again.model_hash != run(tmp_path, "flip", FLIP).model_hash


def test_a_run_without_attackers_is_bitwise_the_run_without_an_attack(tmp_path: Path) -> None:
    plain = run(tmp_path, "plain")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nobody = run(tmp_path, "nobody", {**FLIP, "fraction": 0})
        before = run(tmp_path, "before", {**FLIP, "start": 9})
    assert plain.model_hash == nobody.model_hash == before.model_hash
    assert [record["attackers"] for record in nobody.history] == [[]] * 8


@pytest.mark.parametrize("method", [{"name": "mimic"}, {"name": "gaussian", "std": 0.01}])
def test_resumed_equals_uninterrupted(tmp_path: Path, method: dict) -> None:
    """Mimic remembers a direction over rounds, which therefore belongs into the checkpoint."""
    attack = {**FLIP, "method": method, "start": 2}
    whole = run(tmp_path, "whole", attack)

    def stop_after_five(record: dict) -> None:
        if record["round"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "cut", attack, observers=[stop_after_five])
    resumed = simulate(resume=tmp_path / "cut", engine="inline", report=False)
    assert resumed.model_hash == whole.model_hash
    state = RunDir.open(tmp_path / "cut", exclusive=False).load("last").optimiser
    if method["name"] == "mimic":
        assert int(state["grid/step"]) == 7 and torch.isfinite(state["grid/direction"]).all()


def test_a_deployment_has_no_omniscient_attacker(tmp_path: Path) -> None:
    experiment = Experiment.model_validate({**RAW, "attack": FLIP})
    context = SimpleNamespace(run_config={"experiment": experiment.to_json(), "out": str(tmp_path / "run")}, run_id=1)
    assert from_run_config(context.run_config, tmp_path).attack.knowledge == "omniscient"
    with pytest.raises(ConfigurationError, match="needs our own engines"):
        main(None, context)


def test_the_servers_own_pipeline_is_tried_out_by_who_knows_it(tmp_path: Path) -> None:
    """Against the trimmed mean its strength is searched anew in each round, and the run is repeatable."""
    defended = {**RAW, "server": {**RAW["server"], "rounds": 3, "aggregator": {"name": "trimmed_mean", "f": 2}}}
    aware = {**FLIP, "method": {"name": "defence_aware", "base": "alie"}}
    found = run(tmp_path, "aware", aware, defended)
    assert found.model_hash == run(tmp_path, "again", aware, defended).model_hash
    assert (
        found.model_hash != run(tmp_path, "fixed", {**FLIP, "method": {"name": "alie", "z": 0.5}}, defended).model_hash
    )


@pytest.mark.parametrize("knowledge", ["omniscient", "colluding"])
def test_an_attack_that_could_not_act_is_not_taken_for_one_that_failed(tmp_path: Path, knowledge: str) -> None:
    """One attacker of one: nobody else's update is known, and ALIE needs two. Record, results and report say so."""
    few = {**RAW, "server": {**RAW["server"], "rounds": 2, "sampling": {"name": "fixed", "clients": 1}}}
    attack = {**FLIP, "method": {"name": "alie"}, "fraction": 1.0, "knowledge": knowledge}
    found = run(tmp_path, "idle", attack, few, report=True)
    assert found.model_hash == run(tmp_path, "clean", None, few).model_hash
    for record in found.history:
        assert list(record["attack_idle"]) == [str(client) for client in record["attackers"]] != []
    assert found.results["attack_idle_rounds"] == [1, 2]
    assert "could not attack and sent an honest update" in (found.path / "report.html").read_text()


def test_the_strategys_word_decides_who_attacks(tmp_path: Path) -> None:
    """A grid that would draw others itself rewrites those that the strategy, which knows the directory, names."""
    with InlineGrid(app_of_two_arrays(), 4) as inner:
        grid = AdversarialGrid(inner, make_attack("ipm", tau=5), malicious={0})
        arrays = ArrayRecord({"a": Array(np.zeros(1)), "b": Array(np.zeros(1)), "n": Array(np.array([0]))})
        content = RecordDict({"arrays": arrays, "config": ConfigRecord({"attackers": [3]})})
        replies = list(grid.send_and_receive([Message(content, node, "train") for node in grid.get_node_ids()]))
    assert [float(reply.content["arrays"]["a"].numpy()[0]) for reply in replies] == [0.0, 1.0, 2.0, -5.0]
    assert grid.history[0].attackers == (3,)


def test_a_pipeline_that_cannot_be_tried_out_is_refused(tmp_path: Path) -> None:
    aware = {**FLIP, "method": {"name": "defence_aware"}}
    server = {**RAW["server"], "aggregator": {"name": "fltrust"}, "root": "validation"}
    with pytest.raises(ConfigurationError, match=r"'fltrust' needs what only the server has.*knows_rule = false"):
        run(tmp_path, "trust", aware, {**RAW, "server": server})
