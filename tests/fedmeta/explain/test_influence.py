"""Influence of support examples: closed forms, leave-one-out to first order, and that no share is lost."""

import numpy as np
import pytest
import torch
from torch import nn

from fedmeta.explain.influence import (
    explain_support,
    gradient_influence,
    leave_one_out,
    prototype_influence,
    prototype_shares,
    relative_shares,
)
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.models.network import Network
from fedmeta.tasks import Batch


def drawn(n: int, features: int = 3, ways: int = 2, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % ways
    return Batch(torch.randn(n, features, generator=generator, dtype=torch.float64) + y.unsqueeze(1), y)


def linear(outputs: int, features: int = 3) -> nn.Module:
    return Network(nn.Flatten(), nn.Linear(features, outputs)).double()


def test_shares_of_a_class_are_its_logit_wherever_the_origin_lies() -> None:
    support, query = drawn(7), drawn(4, seed=1).x
    shares = prototype_shares(support.x, support.y, 3, query)
    for slot in (0, 1):
        mean = support.x[support.y == slot].numpy().mean(axis=0)
        logits = -((query.numpy() - mean) ** 2).sum(axis=1)
        np.testing.assert_allclose(shares[support.y == slot].sum(dim=0).numpy(), logits, rtol=1e-12)
    moved = prototype_shares(support.x + 5.0, support.y, 3, query + 5.0)
    torch.testing.assert_close(moved, shares)
    centred = relative_shares(shares, support.y, 3)
    logits = torch.stack([centred[support.y == slot].sum(dim=0) for slot in (0, 1)])
    torch.testing.assert_close(logits.sum(dim=0), torch.zeros(4, dtype=torch.float64))


def test_prototype_influence_is_the_gradient_by_weights_and_twice_the_share_above_the_mean() -> None:
    support, query = drawn(8), drawn(3, seed=1).x
    found = prototype_influence(support.x, support.y, 2, query)
    shares = prototype_shares(support.x, support.y, 2, query)
    for slot in (0, 1):
        own = torch.nonzero(support.y == slot).flatten()
        weights = torch.ones(len(own), dtype=torch.float64, requires_grad=True)
        mean = (weights.unsqueeze(1) * support.x[own]).sum(dim=0) / weights.sum()
        for column in range(3):
            logit = -((query[column] - mean) ** 2).sum()
            (slope,) = torch.autograd.grad(logit, weights, retain_graph=True)
            torch.testing.assert_close(found[own, column], slope)
            above = shares[own, column] - shares[own, column].mean()
            torch.testing.assert_close(found[own, column], 2 * above)


@pytest.mark.parametrize("count", [20, 200])
def test_both_equal_leave_one_out_to_first_order_on_a_linear_model(count: int) -> None:
    """Prototypes of a linear embedding, and one step of a linear head: the error falls as 1 / n."""
    support, query = drawn(count), drawn(4, seed=1).x
    embedding = nn.Linear(3, 3, bias=False).double()
    own = {"weight": torch.eye(3, dtype=torch.float64) * 0.5}
    protonet = make_learner("protonet", embedding)
    found = explain_support(protonet, own, support, 2, query)
    assert found.method == "prototype"
    exact = leave_one_out(protonet, own, support, 2, query, found.slots)
    size = float(exact.abs().max())
    assert float((exact - found.values).abs().max()) < 8 / count * size
    # exactly: K / (K - 1) times the first order, and the square of what the mean moves by.
    means = torch.stack([support.x[support.y == slot].mean(dim=0) for slot in (0, 1)])
    spread = ((support.x - means[support.y]) * 0.5).square().sum(dim=1, keepdim=True)
    half = count // 2
    formula = found.values * half / (half - 1) + (found.values != 0) * spread / (half - 1) ** 2
    torch.testing.assert_close(exact, formula)

    maml = make_learner("maml", linear(2), inner_lr=0.3, inner_steps=1)
    params = maml.init(torch.Generator().manual_seed(0))
    found = explain_support(maml, params, support, 2, query)
    assert found.method == "gradient" and found.shares is None
    exact = leave_one_out(maml, params, support, 2, query, found.slots)
    torch.testing.assert_close(exact, found.values * count / (count - 1))


@pytest.mark.parametrize("name", ["maml", "fomaml", "anil", "boil", "imaml", "metasgd"])
def test_the_gradient_passes_through_several_steps(name: str) -> None:
    """Against finite differences of the weighted inner loop, taken by repeating an example: no autograd involved."""
    model = make_model("mlp", input_shape=(3,), hidden=(4,), ways=2, normalisation="none").double()
    settings = {"regularisation": 0.5} if name == "imaml" else {}
    learner = make_learner(name, model, inner_lr=0.2, inner_steps=3, **settings)
    params = learner.init(torch.Generator().manual_seed(0))
    support, query = drawn(5), drawn(2, seed=1).x
    found = explain_support(learner, params, support, 2, query)
    assert found.method == "gradient"
    times = 4000
    for left in (0, 3):
        # Every example `times` times and one of them once more: a weight of 1 + 1 / times.
        rows = torch.cat([torch.arange(5).repeat(times), torch.tensor([left])])
        adapted = learner.adapt(params, Batch(support.x[rows], support.y[rows]), 2)
        change = learner.predict(adapted, query) - found.outputs
        slope = times * change.gather(1, found.slots.unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(found.values[left], slope.detach(), rtol=5e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["reptile", "matchingnet", "fedavg"])
def test_other_learners_are_adapted_without_each_example(name: str) -> None:
    outputs = None if name == "matchingnet" else 2
    model = make_model("mlp", input_shape=(3,), hidden=(4,), ways=outputs, normalisation="none").double()
    learner = make_learner(name, model, **({} if name == "matchingnet" else {"test_steps": 2}))
    params = learner.init(torch.Generator().manual_seed(0))
    support, query = drawn(6), drawn(2, seed=1).x
    found = explain_support(learner, params, support, 2, query)
    assert (
        found.method == "leave-one-out" and gradient_influence(learner, params, support, 2, query, found.slots) is None
    )
    without = learner.adapt(params, Batch(support.x[1:], support.y[1:]), 2)
    change = (found.outputs - learner.predict(without, query)).gather(1, found.slots.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(found.values[0], change.detach())


def test_a_regression_and_counts_of_one() -> None:
    learner = make_learner("maml", make_model("sinusoid").double(), task="regression", inner_lr=0.01)
    params = learner.init(torch.Generator().manual_seed(0))
    support = Batch(torch.ones(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    found = explain_support(learner, params, support, 1, torch.zeros(2, 1, dtype=torch.float64))
    assert found.values.abs().max() < 1e-12, "the weight of the only example is relative to itself"
    with pytest.raises(ValueError, match="one example"):
        leave_one_out(learner, params, support, 1, support.x, torch.zeros(1, dtype=torch.int64))
