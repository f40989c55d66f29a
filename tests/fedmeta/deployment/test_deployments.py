"""Defences at deployment: their formulas by hand, both executions, and what they refuse."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedmeta.deployment import DEPLOYMENTS, deploy
from fedmeta.errors import ConfigurationError
from fedmeta.evaluation import evaluate
from fedmeta.learners import make_learner
from fedmeta.learners.functional import embed
from fedmeta.models.network import Network
from fedmeta.tasks import Batch, Episode
from server.configuration import load

WAYS, SHOTS, INPUTS = 3, 2, 6


def made(name: str, **settings):
    """A learner around a small smooth net in float64, its parameters, and two episodes."""
    body = nn.Sequential(nn.Linear(INPUTS, 7), nn.Tanh(), nn.Linear(7, 4), nn.Tanh())
    outputs = {"protonet": None, "fedavg": 8}.get(name, WAYS)
    model = Network(body, None if outputs is None else nn.Linear(4, outputs)).double()
    learner = make_learner(name, model, **settings)
    g = torch.Generator().manual_seed(7)
    params = {key: value.double() for key, value in learner.init(g).items()}

    def batch(each: int) -> Batch:
        x = torch.randn(WAYS * each, INPUTS, generator=g, dtype=torch.float64)
        return Batch(x, torch.arange(WAYS).repeat(each))

    return learner, params, [Episode(batch(SHOTS), batch(4), torch.arange(WAYS)) for _ in range(2)]


@pytest.mark.parametrize("name", ["maml", "protonet", "fedavg", "metasgd"])
@pytest.mark.parametrize("body", ["shared", "adapted"])
def test_the_matching_head_is_attention_over_the_support(name: str, body: str) -> None:
    """P(k | x) by loops in numpy, from embeddings of the body as it came or as the learner adapts it."""
    learner, params, (episode, _) = made(name)
    head = deploy("matching_head", learner, temperature=3.0, body=body)
    own = params if body == "shared" or name == "protonet" else learner.adapt(params, episode.support, WAYS, 2)
    support, query = (embed(learner, own, part.x).numpy() for part in (episode.support, episode.query))
    found = head.predict(head.adapt(params, episode.support, WAYS, 2), episode.query.x).softmax(dim=-1)
    for x, row in zip(query, found.numpy(), strict=True):
        weights = [np.exp(3.0 * x @ z / np.linalg.norm(x) / np.linalg.norm(z)) for z in support]
        for k in range(WAYS):
            share = sum(w for w, y in zip(weights, episode.support.y.tolist(), strict=True) if y == k) / sum(weights)
            assert row[k] == pytest.approx(share)


def test_before_the_support_is_seen_every_class_is_as_likely_and_the_heads_of_the_model_do_not_matter() -> None:
    learner, params, (episode, _) = made("maml")
    head = deploy("matching_head", learner)
    assert head.predict(head.adapt(params, episode.support, WAYS, 0), episode.query.x).unique().tolist() == [0.0]
    poisoned = {**params, "head.bias": torch.tensor([1e3, 0.0, 0.0], dtype=torch.float64)}
    first, second = (head.adapt(own, episode.support, WAYS, 1) for own in (params, poisoned))
    assert torch.equal(head.predict(first, episode.query.x), head.predict(second, episode.query.x))


def test_a_class_without_support_is_never_answered_and_its_loss_is_finite() -> None:
    learner, params, (episode, _) = made("maml")
    kept = episode.support.y != 1
    lame = Batch(episode.support.x[kept], episode.support.y[kept])
    head = deploy("matching_head", learner)
    output = head.predict(head.adapt(params, lame, WAYS, 1), episode.query.x)
    assert not (output.argmax(dim=1) == 1).any() and torch.isfinite(F.cross_entropy(output, episode.query.y))


def test_random_finetuning_is_descent_of_a_fresh_head_and_then_the_learner() -> None:
    learner, params, (episode, _) = made("maml", inner_lr=0.3)
    tuned = deploy("random_finetune", learner, steps=4, lr=0.2, seed=5)
    fresh = tuned.fresh_head(params)
    assert all(fresh[name].abs().max() <= 0.5 for name in fresh), "within 1 / sqrt(4)"
    net = nn.Linear(4, WAYS).double()
    net.load_state_dict({name.removeprefix("head."): value for name, value in fresh.items()})
    z = embed(learner, params, episode.support.x)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.2)
    for _ in range(4):
        optimiser.zero_grad()
        F.cross_entropy(net(z), episode.support.y).backward()
        optimiser.step()
    start = {**params, "head.weight": net.weight.detach(), "head.bias": net.bias.detach()}
    for steps in (0, 3):
        ours, theirs = (
            tuned.adapt(params, episode.support, WAYS, steps),
            learner.adapt(start, episode.support, WAYS, steps),
        )
        for name, value in theirs.items():
            assert torch.allclose(ours[name], value, atol=1e-12)
    poisoned = {**params, "head.bias": params["head.bias"] + 1e3}
    assert torch.equal(
        tuned.adapt(poisoned, episode.support, WAYS, 1)["head.bias"],
        tuned.adapt(params, episode.support, WAYS, 1)["head.bias"],
    )
    other = deploy("random_finetune", learner, steps=4, seed=6).fresh_head(params)
    assert not torch.equal(other["head.weight"], fresh["head.weight"])


@pytest.mark.parametrize("defence", sorted(DEPLOYMENTS.entries()))
@pytest.mark.parametrize("name", ["maml", "anil", "metasgd", "reptile"])
def test_loop_and_vmap_agree(defence: str, name: str) -> None:
    learner, params, episodes = made(name)
    under = deploy(defence, learner)
    loop, vmap = (evaluate(under, params, episodes, (0, 1, 3), way) for way in ("loop", "vmap"))
    assert torch.allclose(loop.loss, vmap.loss, atol=1e-9) and torch.equal(loop.score, vmap.score)


def test_what_does_not_fit_is_refused() -> None:
    for name in ("protonet", "fedavg"):
        with pytest.raises(ConfigurationError, match="random_finetune needs a head that comes with the model"):
            load({"learner": {"name": name}, "evaluation": {"deployment": [{"name": "random_finetune"}]}})
    with pytest.raises(ConfigurationError, match="'abml' draws several"):
        deploy("matching_head", made("abml")[0], body="adapted")
    waves = {"data": {"name": "sinusoid"}, "partition": {"name": "iid"}, "model": {"name": "sinusoid"}}
    task = {"ways": 1, "shots": 2, "queries": 2}
    with pytest.raises(ConfigurationError, match="matching_head needs classes"):
        load(
            {
                **waves,
                "task": task,
                "learner": {"name": "maml"},
                "evaluation": {"deployment": [{"name": "matching_head"}]},
            }
        )
    with pytest.raises(ConfigurationError, match=r"evaluation.deployment\[0\].temperature = 0"):
        load({"evaluation": {"deployment": [{"name": "matching_head", "temperature": 0}]}})
    learner, params, (episode, _) = made("maml")
    with pytest.raises(TypeError, match="does not train"):
        deploy("matching_head", learner).meta_gradient(params, episode)
