"""What a learner's settings may be, and what it says when they cannot."""

import pytest
import torch
from torch import nn

from fedmeta.errors import ConfigurationError
from fedmeta.learners import LEARNERS, make_learner
from fedmeta.learners.fedavg import FedAvg
from fedmeta.models import make_model
from fedmeta.params import ParamSpec


def test_unknown_parameter_names_the_closest():
    with pytest.raises(ConfigurationError, match=r"inner_rl.*did you mean 'inner_lr'"):
        make_learner("maml", nn.Linear(2, 2), inner_rl=0.1)


def test_unknown_learner_names_the_closest():
    with pytest.raises(ConfigurationError, match="did you mean 'reptile'"):
        make_learner("reptil", nn.Linear(2, 2))


@pytest.mark.parametrize("value", [0.0, -0.1, float("nan"), float("inf"), "fast", True])
@pytest.mark.parametrize("name", ["maml", "reptile", "metasgd", "fedavg"])
def test_inner_lr_out_of_bounds(name, value):
    with pytest.raises(ConfigurationError, match=r"learner\.inner_lr"):
        make_learner(name, make_model("mlp", ways=5), inner_lr=value)


def test_reptile_without_inner_steps_would_learn_nothing():
    with pytest.raises(ConfigurationError, match="inner_steps"):
        make_learner("reptile", nn.Linear(2, 2), inner_steps=0)


def test_protonet_does_not_serve_regression():
    with pytest.raises(ConfigurationError, match="serves classification, not regression"):
        make_learner("protonet", nn.Linear(2, 2), "regression")


@pytest.mark.parametrize("name", ["anil", "boil", "fedavg"])
def test_a_head_is_needed(name):
    with pytest.raises(ConfigurationError, match="no linear submodule `head`"):
        make_learner(name, nn.Linear(2, 2))


def test_test_steps_default_to_inner_steps():
    net = make_model("mlp", ways=5)
    assert make_learner("maml", net, inner_steps=4).default_steps == 4
    assert make_learner("maml", net, inner_steps=4, test_steps=0).default_steps == 0
    assert make_learner("reptile", net, test_steps=None).default_steps == 5


@pytest.mark.parametrize("name", [name for name in LEARNERS.entries() if "classification" in LEARNERS.get(name).serves])
def test_initialisation_follows_the_generator_alone(make_case, name):
    learner = make_case(name).learner
    state = torch.get_rng_state()
    first = learner.init(torch.Generator().manual_seed(0))
    torch.manual_seed(99)
    again, other = (learner.init(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    torch.set_rng_state(state)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_metasgd_alpha_is_in_the_vector():
    learner = make_learner("metasgd", make_model("sinusoid"), "regression", inner_lr=0.01)
    spec = ParamSpec.of(learner.init(torch.Generator().manual_seed(0)))
    assert spec.size() == 2 * 1761
    assert spec.entries[-1].name == "alpha.head.bias"


def test_fedavg_head_of_new_ways(make_case):
    case = make_case("fedavg")
    assert isinstance(case.learner, FedAvg) and case.params["head.weight"].shape == (8, 4)
    for finetune in ("all", "head"):
        adapted = make_case("fedavg", finetune=finetune).learner.adapt(case.params, case.episode.support, 3)
        assert adapted["head.weight"].shape == (3, 4) and adapted["head.bias"].shape == (3,)
        body_moved = not torch.equal(adapted["body.1.weight"], case.params["body.1.weight"])
        assert body_moved == (finetune == "all")


def test_reptile_on_the_support_only_ignores_the_query(make_case):
    case = make_case("reptile", examples="support")
    first, _ = case.learner.meta_gradient(case.params, case.episode)
    query = case.episode.query._replace(x=case.episode.query.x + 1)
    second, _ = case.learner.meta_gradient(case.params, case.episode._replace(query=query))
    assert all(torch.equal(first[key], second[key]) for key in first)
