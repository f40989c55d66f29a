"""Matching networks: attention by hand, its limits, and full-context embeddings against torch's own LSTM."""

import pytest
import torch
from torch import nn

from fedmeta.errors import ConfigurationError
from fedmeta.execution import over_tasks
from fedmeta.learners import make_learner
from fedmeta.learners.draws import permutation, task_seed
from fedmeta.learners.lstm_cell import initial_cell, lstm_step
from fedmeta.models.network import Network
from fedmeta.tasks import Batch, Episode

SIZE = 4


def identity_net():
    return Network(nn.Identity(), None, features=SIZE)


def probabilities_by_hand(f, g, y, ways, temperature):
    """f [m, d], g [n, d] -> [m, ways], in plain loops (Vinyals et al. 2016, equation 1)."""
    found = torch.zeros(len(f), ways, dtype=f.dtype)
    for row, query in enumerate(f):
        scores = [float(query @ key / (query.norm() * key.norm())) * temperature for key in g]
        weights = torch.tensor(scores, dtype=f.dtype).exp()
        for key, label in enumerate(y):
            found[row, label] += weights[key] / weights.sum()
    return found


@pytest.fixture
def task():
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randn(n, SIZE, generator=generator, dtype=torch.float64)  # noqa: E731
    return Episode(
        Batch(draw(6), torch.tensor([0, 1, 2, 0, 1, 2])), Batch(draw(5), torch.tensor([0, 1, 2, 2, 1])), None
    )


@pytest.mark.parametrize("learnt", [False, True])
def test_attention_by_hand(task, learnt):
    learner = make_learner("matchingnet", identity_net(), temperature=3.0, learn_temperature=learnt)
    params = {"log_temperature": torch.tensor(7.0).log().double()} if learnt else {}
    logits = learner.predict(learner.adapt(params, task.support, 3), task.query.x)
    want = probabilities_by_hand(task.query.x, task.support.x, task.support.y, 3, 7.0 if learnt else 3.0)
    torch.testing.assert_close(logits.exp(), want, rtol=1e-6 if learnt else 1e-12, atol=1e-12)


def test_at_one_shot_and_infinite_temperature_it_is_the_nearest_by_cosine(task):
    support = Batch(task.support.x[:3], task.support.y[:3])
    learner = make_learner("matchingnet", identity_net(), temperature=1e6)
    answers = learner.predict(learner.adapt({}, support, 3), task.query.x).argmax(dim=1)
    cosine = nn.functional.cosine_similarity(task.query.x[:, None], support.x[None], dim=-1)
    assert torch.equal(answers, support.y[cosine.argmax(dim=1)])


def test_equal_embeddings_give_the_class_shares_and_an_absent_class_nothing():
    x = torch.ones(5, SIZE, dtype=torch.float64)
    learner = make_learner("matchingnet", identity_net())
    logits = learner.predict(learner.adapt({}, Batch(x, torch.tensor([0, 0, 0, 1, 1])), 3), x[:2])
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(
        logits.exp(), torch.tensor([[0.6, 0.4, 0.0]] * 2, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


def test_gradient_against_autograd_through_the_hand_written_attention(make_case, relative_error, by_hand):
    case = make_case("matchingnet", temperature=4.0, learn_temperature=True)
    point = {name: value.clone().requires_grad_() for name, value in case.params.items()}
    (sx, sy), (qx, qy), _ = case.episode
    f, g = by_hand(point, qx), by_hand(point, sx)
    cosine = (f @ g.T) / f.norm(dim=1, keepdim=True) / g.norm(dim=1)
    weights = (point["log_temperature"].exp() * cosine).exp()
    own = torch.stack([weights[:, sy == k].sum(dim=1) for k in range(3)], dim=1) / weights.sum(dim=1, keepdim=True)
    loss = -own[torch.arange(len(qy)), qy].log().mean()
    want = dict(zip(point, torch.autograd.grad(loss, list(point.values())), strict=True))
    grads, metrics = case.learner.meta_gradient(case.params, case.episode)
    assert relative_error(grads, want) < 1e-12 and want["log_temperature"] != 0
    torch.testing.assert_close(metrics["loss"], loss.detach())


def test_the_cell_is_torchs():
    weights = {name: value.double() for name, value in initial_cell(3, 5, 5, torch.Generator().manual_seed(0)).items()}
    cell = nn.LSTMCell(3, 5).double()
    state = {"weight_ih": weights["input"], "weight_hh": weights["hidden"], "bias_ih": weights["bias"]}
    cell.load_state_dict({**state, "bias_hh": torch.zeros(20)})
    x, hidden, memory = (torch.randn(2, size, dtype=torch.float64) for size in (3, 5, 5))
    for ours, theirs in zip(lstm_step(weights, x, hidden, memory), cell(x, (hidden, memory)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


def full_context_by_hand(params, f, g, steps):
    """Appendix A.1 and A.2 with torch's own bidirectional LSTM and cell."""
    both = nn.LSTM(SIZE, SIZE, bidirectional=True).double()
    zero = torch.zeros(4 * SIZE)
    state = {}
    for direction, suffix in (("forward", ""), ("backward", "_reverse")):
        own = {key: params[f"context.{direction}.{key}"] for key in ("input", "hidden", "bias")}
        state |= {f"weight_ih_l0{suffix}": own["input"], f"weight_hh_l0{suffix}": own["hidden"]}
        state |= {f"bias_ih_l0{suffix}": own["bias"], f"bias_hh_l0{suffix}": zero}
    both.load_state_dict(state)
    swept = both(g)[0].detach()
    g = swept[:, :SIZE] + swept[:, SIZE:] + g
    own = {key: params[f"context.attention.{key}"] for key in ("input", "hidden", "bias")}
    found = []
    for query in f:
        h = r = c = torch.zeros(SIZE, dtype=torch.float64)
        for _ in range(steps):
            gates = own["input"] @ query + own["hidden"] @ torch.cat([h, r]) + own["bias"]
            i, forget, candidate, o = gates.view(4, SIZE)
            c = torch.sigmoid(forget) * c + torch.sigmoid(i) * torch.tanh(candidate)
            h = torch.sigmoid(o) * torch.tanh(c) + query
            r = torch.softmax(g @ h, dim=0) @ g
        found.append(h)
    return torch.stack(found), g


def test_full_context_by_hand(task):
    learner = make_learner("matchingnet", identity_net(), temperature=2.0, full_context=True, processing_steps=3)
    params = {name: value.double() for name, value in learner.init(torch.Generator().manual_seed(1)).items()}
    logits = learner.predict(learner.adapt(params, task.support, 3), task.query.x)
    f, g = full_context_by_hand(params, task.query.x, task.support.x, 3)
    want = probabilities_by_hand(f, g, task.support.y, 3, 2.0)
    torch.testing.assert_close(logits.exp(), want, rtol=1e-10, atol=1e-12)


def test_the_order_of_the_support_is_drawn_in_training_and_kept_in_use(task):
    learner = make_learner("matchingnet", identity_net(), full_context=True)
    params = {name: value.double() for name, value in learner.init(torch.Generator().manual_seed(1)).items()}
    episode = task._replace(classes=torch.arange(3))
    _, metrics = learner.meta_gradient(params, episode)
    order = permutation(task_seed(task.support.x), 0, 6)
    assert order.tolist() != list(range(6))

    def loss(support):
        return learner.task.loss(learner.predict(learner.adapt(params, support, 3), task.query.x), task.query.y)

    torch.testing.assert_close(metrics["loss"], loss(Batch(task.support.x[order], task.support.y[order])))
    assert not torch.isclose(metrics["loss"], loss(task.support), rtol=1e-9)


def test_full_context_runs_under_vmap(task):
    learner = make_learner("matchingnet", identity_net(), full_context=True)
    params = {name: value.double() for name, value in learner.init(torch.Generator().manual_seed(1)).items()}
    tasks = [task._replace(classes=torch.arange(3))] * 2
    loop, vmap = (over_tasks(learner.meta_gradient, params, tasks, way)[0] for way in ("loop", "vmap"))
    assert all(torch.allclose(loop[name], vmap[name], rtol=1e-12, atol=1e-14) for name in loop)
    assert all(value.abs().max() > 0 for value in loop.values())


def test_full_context_needs_the_size_of_the_embedding():
    with pytest.raises(ConfigurationError, match="features=64"):
        make_learner("matchingnet", Network(nn.Identity(), None), full_context=True)
