"""The flat vector: round trips, roles, tied parameters, buffers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedmeta.errors import ConfigurationError
from fedmeta.params import ParamSpec, trainable_parameters

shapes = st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=1, max_size=5)
leading = st.lists(st.integers(1, 3), max_size=2).map(tuple)


@given(shapes, leading, st.data())
def test_round_trip(sizes, batch, data):
    template = {f"p{index}": torch.zeros(size) for index, size in enumerate(sizes)}
    personal = data.draw(st.lists(st.sampled_from(list(template)), unique=True, max_size=len(template) - 1))
    spec = ParamSpec.of(template, personal=personal)
    values = {name: torch.randn((*batch, *value.shape)) for name, value in template.items()}
    for role in ("shared", "personal"):
        if not spec.select(role):
            continue
        vector = spec.flatten(values, role)
        assert vector.shape == (*batch, spec.size(role))
        back = spec.unflatten(vector, role)
        assert list(back) == [entry.name for entry in spec.select(role)]
        assert all(torch.equal(back[name], values[name]) for name in back)
        assert torch.equal(spec.flatten(back, role), vector)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_order_is_that_of_the_names(sizes):
    params = {f"p{index}": torch.full((size,), float(index)) for index, size in enumerate(sizes)}
    expected = [float(index) for index, size in enumerate(sizes) for _ in range(size)]
    assert ParamSpec.of(params).flatten(params).tolist() == expected


def test_wrong_length():
    with pytest.raises(ValueError, match="a vector of 5 shared parameters where the model has 4"):
        ParamSpec.of({"w": torch.zeros(4)}).unflatten(torch.zeros(5))


def test_roles():
    params = trainable_parameters(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3), nn.Linear(3, 1)))
    spec = ParamSpec.of(params, personal=["2.*"], frozen=["0.weight"])
    assert [entry.name for entry in spec.select("shared")] == ["0.bias", "1.weight", "1.bias"]
    assert (spec.size(), spec.size("personal"), spec.size("frozen")) == (11, 4, 4)
    assert spec.flatten(params).shape == (11,)
    assert spec.hash != ParamSpec.of(params).hash


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"personal": ["tail.*"]}, "matches no parameter"),
        ({"personal": ["w"], "frozen": ["w"]}, "cannot be both"),
        ({"frozen": ["*"]}, "no parameter is shared"),
    ],
)
def test_impossible_roles(roles, message):
    with pytest.raises(ConfigurationError, match=message):
        ParamSpec.of({"w": torch.zeros(2), "b": torch.zeros(1)}, **roles)


def test_tied_parameter_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert ParamSpec.of(trainable_parameters(net)).size() == 4 + 2 + 2


def test_f13_buffers_never_enter():
    with pytest.raises(ConfigurationError, match="running_mean"):
        trainable_parameters(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    net = nn.BatchNorm1d(2, track_running_stats=False)
    assert list(trainable_parameters(net)) == ["weight", "bias"]
