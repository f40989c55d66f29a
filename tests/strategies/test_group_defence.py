"""Robust rules over group means: f in clients becomes bad groups, and what cannot bear them is refused."""

import dataclasses
import warnings

import pytest
import torch

from fedmeta.errors import ConfigurationError
from server.configuration import load
from strategies.defence import make_defence
from strategies.group_defence import group_promise
from strategies.secagg_groups import GroupOdds

BASE = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 100, "test_clients": 1},
    "task": {"ways": 1, "shots": 5, "queries": 5},
    "model": {"name": "sinusoid"},
    "learner": {"name": "maml", "inner_lr": 0.01},
}


def raw(aggregator: dict, clients: int = 100, preaggregators: list | None = None, **secagg) -> dict:
    server = {"sampling": {"name": "fixed", "clients": clients}, "aggregator": aggregator}
    server |= {"preaggregators": preaggregators} if preaggregators else {}
    return {**BASE, "server": server, "secagg": {"enabled": True, "group_size": 4, **secagg}}


def test_f_is_the_bad_groups_that_f_clients_may_make() -> None:
    experiment = load(raw({"name": "trimmed_mean", "f": 5}, preaggregators=[{"name": "nnm", "f": 3}]))
    defence = make_defence(experiment)
    assert defence.aggregator.f == GroupOdds.of(100, 5, 4, 0.01).bad == 5
    assert defence.preaggregators[0].f == GroupOdds.of(100, 3, 4, 0.01).bad == 3
    # Many attackers meet in the same groups: up to 9 bad ones of 25, of 10 attackers.
    ten = make_defence(load(raw({"name": "trimmed_mean", "f": 10})))
    assert ten.aggregator.f == GroupOdds.of(100, 10, 4, 0.01).bad <= 10
    bad = torch.tensor([[9.0]] * ten.aggregator.f + [[float(i)] for i in range(25 - ten.aggregator.f)])
    assert 0 <= float(ten(bad).vector) <= 25


def test_the_promise_of_a_run_is_said_in_numbers() -> None:
    promise = group_promise(load(raw({"name": "median"})), 100)
    assert promise is not None and promise.tolerated == 12 and promise.holds
    assert promise.to_json()["assumed_malicious"] == 10 and promise.to_json()["groups"] == [4] * 25
    assert "100 clients a round in 25 groups of 4; with 10 malicious a group is clean with probability 0.652" in str(
        promise
    )
    assert "promises nothing" in str(group_promise(load(raw({"name": "mean"})), 100))


@pytest.mark.parametrize(
    ("aggregator", "secagg", "words"),
    [
        ({"name": "median"}, {"group_size": 10}, ["secagg.group_size = 10", "probability 0.99", "group_size to 4"]),
        ({"name": "krum", "f": 15}, {"group_size": 5}, ["krum bears 8 bad groups", "allow_unsafe_groups"]),
        ({"name": "foolsgold"}, {}, ["follows every client", "groups that are drawn anew"]),
        ({"name": "fldetector"}, {}, ["follows every client"]),
    ],
)
def test_groups_that_cannot_bear_the_attackers_are_refused(aggregator: dict, secagg: dict, words: list) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(raw(aggregator, **secagg))
    assert all(word in str(refused.value) for word in words), refused.value


def test_the_remedy_of_a_refusal_works() -> None:
    load(raw({"name": "median"}, group_size=4))
    with pytest.raises(ConfigurationError):
        load(raw({"name": "median"}, group_size=5))


def test_unsafe_groups_are_an_explicit_choice_and_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"unsafe groups, as allowed.*median bears 4 bad groups"):
        experiment = load(raw({"name": "median"}, group_size=10, allow_unsafe_groups=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        krum = raw({"name": "krum", "f": 15}, group_size=5, allow_unsafe_groups=True)
        assert make_defence(load(krum)).aggregator.f == 8, "as many as it can bear"
    assert dataclasses.replace(group_promise(experiment, 100).odds).bad > 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"secagg": {"group_size": 3}}, ["secagg.group_size = 3", "at least 4", "allow_unsafe_groups"]),
        ({"secagg": {"threshold": 5}}, ["secagg.threshold = 5", "secagg.group_size = 4"]),
        ({"secagg": {"group_size": 10, "threshold": 3}}, ["secagg.threshold = 3", "at least 5", "remove it"]),
        ({"secagg": {"group_size": 60, "neighbours": 7}}, ["degree 7", "(secagg.neighbours, secagg.threshold)"]),
        ({"secagg": {"corrupt": 0.4, "dropouts": 0.4}}, ["secagg.corrupt", "a group of 4 cannot bear"]),
        ({"secagg": {"bits": 16}}, ["secagg.bits", "16"]),
        ({"secagg": {"dropout": {"mask": 0.1}}}, ["secagg.dropout.mask'", "did you mean"]),
        ({"secagg": {"bound": 0}}, ["secagg.bound", "greater than 0"]),
        (
            {"privacy": {"unit": "client", "noise_multiplier": 1.0}, "server": {"sampling": {"name": "fixed"}}},
            ["privacy.placement = 'central'", "local"],
        ),
        (
            {"attack": {"method": {"name": "alie"}, "knowledge": "omniscient"}},
            ["attack.knowledge = 'omniscient'", "masked"],
        ),
        ({"task": {"kind": "own"}, "data": {"name": "hershey"}}, ["secagg.weight_bound"]),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict, words: list) -> None:
    given = raw({"name": "mean"})
    for section, values in change.items():
        given[section] = {**given.get(section, {}), **values}
    if "server" in change:
        given["server"]["sampling"]["clients"] = 8
    if given["data"]["name"] == "hershey":
        given |= {"model": {"name": "conv4"}, "partition": {"name": "writer"}, "learner": {"name": "reptile"}}
    with pytest.raises(ConfigurationError) as refused:
        load(given)
    assert all(word in str(refused.value) for word in words), refused.value


def test_what_has_no_effect_is_said() -> None:
    given = raw({"name": "mean"}, enabled=False)
    with pytest.warns(UserWarning, match=r"secagg.group_size has no effect: secagg.enabled = false"):
        load(given)


@pytest.mark.parametrize(
    ("clients", "size", "adversary", "told"),
    [
        (100, 50, "active", 0),
        (100, 51, "active", 1),
        (100, 51, "semi-honest", 0),
        (59, 30, "active", 1),
        (40, 60, "active", 0),
    ],
)
def test_a_ring_is_no_shelter_from_a_server_that_draws_it(clients: int, size: int, adversary: str, told: int) -> None:
    """59 clients in groups of 30 are one group of 59."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        load(raw({"name": "mean"}, clients, group_size=size, adversary=adversary))
    assert sum("a ring that the server draws" in str(each.message) for each in said) == told


def test_given_neighbours_may_make_a_ring_of_a_small_group() -> None:
    with pytest.warns(UserWarning, match="a group of 10, not all of them neighbours, is a ring"):
        load(raw({"name": "mean"}, group_size=10, neighbours=8, threshold=8))


def test_a_threshold_below_what_is_assumed_of_others_is_said() -> None:
    with pytest.warns(UserWarning, match=r"secagg.threshold = 6 of 10 shares.*'active', which take 7. Remove it"):
        load(raw({"name": "mean"}, group_size=10, threshold=6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(raw({"name": "mean"}, group_size=10, threshold=7))
        load(raw({"name": "mean"}, group_size=10, threshold=6, adversary="semi-honest"))
