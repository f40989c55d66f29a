"""Cells that choose: the mixture by hand, gradients of alpha, the network of a choice, and a choice that is found."""

import pytest
import torch
import torch.nn.functional as F

from fedmeta.errors import ConfigurationError
from fedmeta.execution import over_tasks
from fedmeta.learners import make_learner
from fedmeta.learners.functional import forward
from fedmeta.models import make_model
from fedmeta.models.cells import OPERATIONS, Cells, strongest
from fedmeta.models.initialise import initialise
from fedmeta.params import ParamSpec, trainable_parameters
from fedmeta.tasks import Batch, Episode

SMALL = {"input_shape": (1, 8, 8), "filters": 2, "cells": 1, "normalisation": "none"}


def test_a_mixed_edge_is_the_softmax_sum_of_its_operations() -> None:
    net, x = make_model("cells", **SMALL, nodes=1), torch.randn(3, 1, 8, 8)
    params = trainable_parameters(net)
    params["body.1.alpha.0"] = alpha = torch.tensor([0.3, -1.0, 2.0, 0.5])
    stem = F.relu(F.conv2d(x, params["body.0.0.weight"], params["body.0.0.bias"], padding=1))
    three, five = (
        F.relu(F.conv2d(stem, params[f"body.1.edges.0.{i}.0.weight"], params[f"body.1.edges.0.{i}.0.bias"], padding=i))
        for i in (1, 2)
    )
    pooled = F.avg_pool2d(stem, 3, stride=1, padding=1, count_include_pad=False)
    parts = torch.stack([stem, three, five, pooled])
    mixed = (alpha.softmax(0).view(4, 1, 1, 1, 1) * parts).sum(0)
    torch.testing.assert_close(forward(net, params, x), F.avg_pool2d(mixed, 2).flatten(1))
    assert OPERATIONS == ("skip", "conv3", "conv5", "pool")


def test_alphas_travel_and_have_gradients() -> None:
    """They are shared entries of the flat vector; the meta-gradient through the inner loop agrees with differences."""
    net = make_model("cells", **SMALL, ways=2).double()
    learner = make_learner("maml", net, inner_lr=0.1, inner_steps=1)
    params = {name: value.double() for name, value in learner.init(torch.Generator().manual_seed(0)).items()}
    spec = ParamSpec.of(params)
    alphas = [entry.name for entry in spec.select("shared") if ".alpha." in entry.name]
    assert alphas == [f"body.1.alpha.{edge}" for edge in range(3)]
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64, generator=generator)
    y = torch.tensor([0, 1, 0, 1])
    episode = Episode(Batch(x, y), Batch(x.flip(0), y.flip(0)), torch.arange(2))
    grads, _ = learner.meta_gradient(params, episode)

    def query_loss(alpha: torch.Tensor) -> float:
        moved = {**params, alphas[2]: alpha}
        adapted = learner.adapt(moved, episode.support, 2, 1)
        return float(F.cross_entropy(learner.predict(adapted, episode.query.x), episode.query.y))

    for place in range(4):
        step = torch.zeros(4, dtype=torch.float64)
        step[place] = 1e-5
        slope = (query_loss(params[alphas[2]] + step) - query_loss(params[alphas[2]] - step)) / 2e-5
        assert float(grads[alphas[2]][place]) == pytest.approx(slope, rel=1e-4, abs=1e-9)


def test_a_loop_and_vmap_agree() -> None:
    learner = make_learner("fomaml", make_model("cells", **SMALL, ways=2), inner_lr=0.1)
    params = learner.init(torch.Generator().manual_seed(0))
    batches = [Batch(torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])) for _ in range(4)]
    episodes = [Episode(batches[i], batches[i + 1], torch.arange(2)) for i in (0, 2)]

    def gradient(params, episode):
        grads, metrics = learner.meta_gradient(params, episode)
        return grads["body.1.alpha.1"], metrics["loss"]

    for one, other in zip(*(over_tasks(gradient, params, episodes, way) for way in ("loop", "vmap")), strict=True):
        torch.testing.assert_close(one, other)


def test_a_choice_is_the_network_that_a_hard_alpha_gives() -> None:
    chosen = ("conv3", "skip", "pool")
    mixed = make_model("cells", **SMALL, ways=3)
    params = trainable_parameters(mixed)
    for edge, name in enumerate(chosen):
        params[f"body.1.alpha.{edge}"] = torch.full((4,), -1e4).index_fill(0, torch.tensor(OPERATIONS.index(name)), 0.0)
    single = make_model("cells", **SMALL, ways=3, chosen=chosen)
    own = trainable_parameters(single)
    same = {name: params[name.replace("edges.0.0.", "edges.0.1.")] for name in own}  # conv3 is the second of all
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(forward(single, same, x), forward(mixed, params, x))
    assert strongest(params) == chosen and strongest(own) == ()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"model.chosen has 1 operations, and 1 cells of 3 edges need 3"):
        make_model("cells", **SMALL, chosen=("skip",))
    with pytest.raises(ConfigurationError, match=r"model.chosen names 'conv7': use skip, conv3"):
        make_model("cells", **SMALL, chosen=("skip", "skip", "conv7"))
    with pytest.raises(ConfigurationError, match="channels, height, width"):
        make_model("cells", input_shape=(64,))
    assert Cells(input_shape=(3, 1, 7), cells=4, ways=2).build()(torch.randn(2, 3, 1, 7)).shape == (2, 2)


def test_fresh_alphas_are_alike_and_training_finds_what_is_needed() -> None:
    """Classes that only their 5x5 surroundings tell apart (a far corner), in 60 steps: the wide operation wins."""
    net = make_model("cells", input_shape=(1, 9, 9), filters=4, cells=1, nodes=1, normalisation="none", ways=2)
    params = initialise(net, torch.Generator().manual_seed(3))
    assert torch.equal(params["body.1.alpha.0"], torch.zeros(4))
    generator = torch.Generator().manual_seed(0)
    # A dot and, at distance (3, 3) for one class and (3, -3) for the other, a second: out of reach of 3x3 on 3x3.
    x, y = torch.zeros(64, 1, 9, 9), torch.arange(64) % 2
    for row in range(64):
        top, left = (int(v) for v in torch.randint(0, 6, (2,), generator=generator))
        x[row, 0, top, left if y[row] == 0 else left + 3] = 1
        x[row, 0, top + 3, left + 3 if y[row] == 0 else left] = 1
    params = {name: value.clone().requires_grad_() for name, value in params.items()}
    optimiser = torch.optim.Adam(params.values(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(forward(net, params, x), y).backward()
        optimiser.step()
    weights = params["body.1.alpha.0"].detach().softmax(0)
    assert strongest(params) == ("conv5",), weights


def test_a_choice_goes_by_numbers_and_not_by_the_order_of_names() -> None:
    """A file may sort names as text, 10 before 2; a learner may keep step sizes or copies under the same names."""
    net = make_model("cells", input_shape=(1, 8, 8), filters=1, cells=6, nodes=2, normalisation="none", ways=2)
    params = trainable_parameters(net)
    chosen = tuple(OPERATIONS[place % 4] for place in range(18))
    alphas = [name for name in params if ".alpha." in name]
    assert len(alphas) == 18 and alphas != sorted(alphas), "11 stands before 3 as text"
    for name, operation in zip(alphas, chosen, strict=True):
        params[name] = F.one_hot(torch.tensor(OPERATIONS.index(operation)), 4).float()
    meta = {f"alpha.{name}": -value for name, value in params.items()}
    personal = {f"personal.{name}": -value for name, value in params.items()}
    assert strongest(params) == strongest({name: params[name] for name in sorted(params)}) == chosen
    assert strongest({**meta, **personal, **params}) == chosen
    assert strongest({"body.1.alpha.0": torch.tensor([0.0, 2.0, 2.0, 2.0])}) == ("conv3",), "the first of equal ones"
    make_model("cells", input_shape=(1, 8, 8), filters=1, cells=6, nodes=2, chosen=chosen)
