"""The experiment schema: one place that refuses what cannot work, in words a user can act on."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.experiment_file import load_experiment, parse_experiment, parse_override, read_toml
from server.configuration import load


def test_importing_the_schema_loads_nothing_heavy() -> None:
    code = "import fedmeta.experiment, simulations.command, sys; print({'torch', 'ray', 'flwr'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"rnds": 3}, ["unknown key 'rnds'"]),
        ({"server": {"ronds": 3}}, ["server.ronds", "did you mean 'server.rounds'"]),
        ({"rounds": 3}, ["unknown key 'rounds'", "did you mean 'server.rounds'"]),
        ({"tracking": {"backends": "wandb"}}, ["must be a list, such as ['wandb']"]),
        ({"server": {"rounds": "many"}}, ["server.rounds", "many"]),
        ({"server": {"rounds": -1}}, ["server.rounds", "-1", "greater than or equal to 0"]),
        ({"learner": {"name": "mamll"}}, ["unknown learner 'mamll'", "did you mean 'maml'"]),
        ({"learner": {"name": "maml", "inner_lrr": 1.0}}, ["learner.inner_lrr", "did you mean 'inner_lr'"]),
        ({"learner": {"name": "maml", "inner_lr": -0.1}}, ["learner.inner_lr", "-0.1", ">"]),
        ({"learner": {"name": "maml", "inner_lr": "fast"}}, ["learner.inner_lr", "'fast'", "a number"]),
        ({"client": {"optimiser": {"name": "adamm"}}}, ["unknown optimiser", "did you mean 'adam'"]),
        ({"server": {"aggregator": {"name": "meen"}}}, ["unknown aggregator", "did you mean 'mean'"]),
        ({"server": {"sampling": {"name": "poisson", "rate": 0}}}, ["server.sampling.rate", "> 0"]),
        ({"model": {"name": "conv4", "ways": 5}}, ["model.ways", "remove it"]),
        ({"evaluation": {"steps": [5, 1]}}, ["evaluation.steps", "ascend"]),
        ({"learner": {"name": "maml"}, "evaluation": {"ways": 7}}, ["evaluation.ways = 7", "task.ways = 5"]),
        ({"seed": True}, ["seed"]),
        ({"server": {"rounds": "4"}}, ["server.rounds", "'4'"]),
        ({"name": "../up"}, ["name"]),
    ],
)
def test_faults_are_named_with_key_value_and_remedy(raw: dict, words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(raw)
    for word in words:
        assert word in str(caught.value)


def test_defaults_resolve_and_survive_json() -> None:
    experiment = load({})
    assert experiment.model.parameters["filters"] == 64, "components carry their parameters' defaults"
    assert Experiment.model_validate_json(experiment.to_json()) == experiment
    assert load(experiment) == experiment


def test_zero_is_a_value() -> None:
    assert load({}, {"seed": 0}).seed == 0
    assert load({}, {"server.rounds": 0}).server.rounds == 0
    assert (
        load({"server": {"optimiser": {"name": "sgd", "momentum": 0.0}}}).server.optimiser.parameters["momentum"] == 0.0
    )
    assert load({"learner": {"name": "maml", "test_steps": 0}}).learner.parameters["test_steps"] == 0


def test_hash_covers_results_and_nothing_else() -> None:
    base = load({})
    assert base.hash == load({}, {"engine.actors": 2, "name": "other", "tracking.project": "x"}).hash
    for key, value in {"seed": 1, "task.ways": 7, "learner.name": "maml", "server.optimiser.lr": 0.5}.items():
        assert load({}, {key: value}).hash != base.hash, key


def test_another_component_drops_the_parameters_it_does_not_have() -> None:
    raw = {"learner": {"name": "maml", "inner_lr": 0.4, "inner_steps": 3}}
    with pytest.warns(UserWarning, match="inner_lr"):
        experiment = load(raw, {"learner.name": "protonet"})
    assert "inner_lr" not in experiment.learner.parameters
    kept = load(raw, {"learner.name": "fomaml"})
    assert kept.learner.parameters["inner_steps"] == 3


def test_files(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml"):
        load_experiment(tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_text("seed = = 1")
    with pytest.raises(ConfigurationError, match=r"bad\.toml.*TOML"):
        load_experiment(tmp_path / "bad.toml")
    (tmp_path / "good.toml").write_text("seed = 3\n[server]\nrounds = 2\n")
    experiment = load_experiment(tmp_path / "good.toml", {"server.rounds": 4})
    assert (experiment.seed, experiment.server.rounds) == (3, 4)


def test_overrides_are_read_as_toml_or_text() -> None:
    assert parse_override("data.path=/a/b") == ("data.path", "/a/b")
    assert parse_override("engine.actors=none") == ("engine.actors", None)
    with pytest.raises(ConfigurationError, match="KEY=VALUE"):
        parse_override("seed")
    with pytest.raises(ConfigurationError, match="'seed' is a value"):
        parse_experiment({"seed": 1}, {"seed.deeper": 2})


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("[attack]\nfraction = 0.1\n[attack] # again\n", "experiment", "an experiment has one [attack]; a grid file"),
        ("[attacks]\n[attacks]\n", "experiment", "each under [[attacks]] (fedmeta bench)"),
        ("[attacks]\n[attacks]\n", "grid", "[attacks] stands there more than once: write [[attacks]] above each"),
        ("[server]\nrounds = 1\n[server]\n", "experiment", "put all its keys under one [server]"),
        ("[[defences]]\n[defences.aggregator]\n[[defences]]\n[defences.aggregator]\nx = \n", "grid", "not valid TOML"),
    ],
)
def test_a_table_that_stands_twice_is_told_with_what_to_write(tmp_path: Path, text: str, kind: str, words: str) -> None:
    (tmp_path / "twice.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_toml(tmp_path / "twice.toml", kind)
    assert words in str(caught.value) and "Cannot declare" not in str(caught.value)


def test_a_list_where_one_table_belongs() -> None:
    with pytest.raises(ConfigurationError, match=r"attack is one table: write \[attack\] once, in single brackets"):
        parse_experiment({"attack": [{"fraction": 0.1}, {"fraction": 0.2}]})
