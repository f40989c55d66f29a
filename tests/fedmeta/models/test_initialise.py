"""Initialisation follows its generator and nothing else."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from fedmeta.errors import ConfigurationError
from fedmeta.models import make_model
from fedmeta.models.initialise import initialise

torch.set_num_threads(1)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_seed_decides_and_zero_is_one():
    net = make_model("conv4", filters=4, ways=3)
    zero, again, one = (initialise(net, generator(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(zero[name], again[name]) for name in zero)
    assert not torch.equal(zero["head.weight"], one["head.weight"])


def test_global_generator_and_module_are_left_alone():
    net = make_model("mlp", hidden=(4,), ways=3)
    before, state = {name: value.clone() for name, value in net.named_parameters()}, torch.get_rng_state()
    initialise(net, generator(0))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in net.named_parameters())


def test_consecutive_draws_differ():
    net, source = make_model("mlp", hidden=(4,), ways=3), generator(0)
    assert not torch.equal(initialise(net, source)["head.weight"], initialise(net, source)["head.weight"])


def test_same_in_another_process():
    code = (
        "import torch; torch.manual_seed(5); torch.rand(3)\n"
        "from fedmeta.models import make_model; from fedmeta.models.initialise import initialise\n"
        "net = make_model('mlp', hidden=(4,), ways=3)\n"
        "print(initialise(net, torch.Generator().manual_seed(3))['head.weight'].tolist())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = initialise(make_model("mlp", hidden=(4,), ways=3), generator(3))["head.weight"].tolist()
    assert printed.strip() == str(here)


def test_tied_parameters_once():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    params = initialise(net, generator(0))
    assert list(params) == ["0.weight", "0.bias", "1.bias"]
    x = torch.randn(2, 3)
    expected = (x @ params["0.weight"].T + params["0.bias"]) @ params["0.weight"].T + params["1.bias"]
    torch.testing.assert_close(torch.func.functional_call(net, params, (x,)), expected)


def test_buffers_are_refused():
    with pytest.raises(ConfigurationError, match="track_running_stats=False"):
        initialise(nn.BatchNorm1d(3), generator(0))
