"""Searched keys: how they are written, what is refused before the first trial."""

import sys
from typing import Any

import pytest

from fedmeta.errors import ConfigurationError
from server.configuration import load
from simulations.tune.run import tune
from simulations.tune.space import check_space, experiment_at, parse_space


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("learner.inner_lr", "give KEY=KIND:VALUES"),
        ("learner.inner_lr=log", "give KEY=KIND:VALUES"),
        ("learner.inner_lr=exp:1:2", "'exp' is no kind of range"),
        ("learner.inner_lr=log:0:1", "needs 0 < LOW < HIGH"),
        ("learner.inner_lr=float:2:1", "needs LOW < HIGH"),
        ("client.steps=int:1:2.5", "are not whole numbers"),
        ("client.steps=int:1", "1 numbers"),
        ("model.filters=choice:16", "two different values"),
    ],
)
def test_a_range_that_is_none_is_refused_in_words(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        parse_space([text])


def test_nothing_and_a_key_twice_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="nothing to search"):
        parse_space([])
    with pytest.raises(ConfigurationError, match="a key twice"):
        parse_space(["a=int:1:2", "a=int:1:3"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("learner.inner_lrr=log:.01:1", "did you mean 'inner_lr'"),
        ("learner.inner_lr=float:-1:1", "learner.inner_lr = -1.0 cannot be: .*> 0"),
        ("client.steps=float:1:2", "client.steps = 1.0 cannot be"),
        ("client.steps=int:0:2", "client.steps = 0 cannot be: .*greater than or equal to 1"),
        ("server.aggregator.name=choice:mean,medain", "did you mean 'median'"),
        ("seed=int:0:9", "'seed' is not to be tuned"),
        ("evaluation.shots=int:1:5", "'evaluation.shots' is not to be tuned"),
        ("task.shots=int:1:5", "changes the tasks that trials are judged on"),
    ],
)
def test_bounds_are_those_of_the_schema(waves: dict[str, Any], text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        check_space(load(waves), parse_space([text]))


def test_a_parameter_of_another_component_is_left_out_of_a_trial(waves: dict[str, Any]) -> None:
    base = load(waves)
    chosen = {"client.optimiser.name": "sgd", "client.optimiser.beta1": 0.5, "client.optimiser.lr": 0.2}
    assert experiment_at(base, chosen).client.optimiser.parameters["lr"] == 0.2
    adam = experiment_at(base, {**chosen, "client.optimiser.name": "adam"})
    assert adam.client.optimiser.parameters["beta1"] == 0.5


def test_without_optuna_one_line_names_the_extra(
    waves: dict[str, Any], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigurationError, match=r"needs optuna, .*pip install 'fedmeta\[tune\]'$") as error:
        tune(waves, ["learner.inner_lr=log:.01:1"], 2, tmp_path, engine="inline")
    assert "\n" not in str(error.value)


def test_no_validation_clients_no_judge(waves: dict[str, Any], tmp_path) -> None:
    waves["partition"]["validation_clients"] = 0
    with pytest.raises(ConfigurationError, match=r"set partition.validation_clients"):
        tune(waves, ["learner.inner_lr=log:.01:1"], 2, tmp_path, engine="inline")
