"""ABML: KL and hyper-prior against closed forms and draws, the conjugate posterior, the gradient by hand."""

import math

import pytest
import torch
from torch import nn

from fedmeta.learners import abml as module
from fedmeta.learners import make_learner
from fedmeta.learners.abml import SIGMA, divergence, mean_prediction
from fedmeta.tasks import TASKS, Batch, Episode


def gaussians(seed, spread=0.3):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: spread * torch.randn(3, 2, generator=generator, dtype=torch.float64)  # noqa: E731
    return {"w": draw(), "log_sigma.w": draw() - 0.5}


def test_kl_is_the_closed_form_and_what_draws_say():
    q, p = gaussians(0), gaussians(1)
    found = divergence(q, p)
    s, t = q["log_sigma.w"].exp(), p["log_sigma.w"].exp()
    closed = (t.log() - s.log() + (s**2 + (q["w"] - p["w"]) ** 2) / (2 * t**2) - 0.5).sum()
    torch.testing.assert_close(found, closed, rtol=1e-13, atol=0)
    noise = torch.randn(200_000, 3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    w = q["w"] + s * noise
    density = lambda mean, scale: (-((w - mean) ** 2) / (2 * scale**2) - scale.log()).sum(dim=(1, 2))  # noqa: E731
    ratio = density(q["w"], s) - density(p["w"], t)
    assert abs(ratio.mean() - found) < 4 * ratio.std() / len(ratio) ** 0.5
    assert divergence(q, q) == 0


def test_hyper_prior_is_torchs_densities_but_for_a_constant():
    learner = make_learner("abml", nn.Linear(2, 1), "regression", gamma_shape=3.0, gamma_rate=0.2)

    def exact(theta):
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(theta["w"]).sum()
        precision = (-2 * theta["log_sigma.w"]).exp()
        return (
            -normal
            - torch.distributions.Gamma(torch.tensor(3.0).double(), torch.tensor(0.2, dtype=torch.float64))
            .log_prob(precision)
            .sum()
        )

    one, two = gaussians(3), gaussians(4)
    torch.testing.assert_close(learner._hyper_prior(one) - learner._hyper_prior(two), exact(one) - exact(two))


def test_the_fixed_point_of_a_linear_gaussian_task_is_the_conjugate_posterior(monkeypatch):
    """One weight, squared error (noise of variance 1/2), KL weight 1/n: the untempered bound.

    The draws are the points +1 and -1, whose mean is exact for a quadratic: nothing but the algorithm is tested.
    """
    monkeypatch.setattr(
        module, "normal", lambda seed, stream, count: torch.full((count,), 1.0 - 2.0 * (stream & 1)).double()
    )
    x = torch.tensor([[0.5], [-1.0], [2.0], [1.5]], dtype=torch.float64)
    y = torch.tensor([[0.3], [-1.1], [1.2], [1.6]], dtype=torch.float64)
    learner = make_learner(
        "abml",
        nn.Linear(1, 1, bias=False).double(),
        "regression",
        inner_lr=0.02,
        kl_inner=1 / 4,
        samples=2,
        inner_steps=2000,
    )
    theta = {"weight": torch.tensor([[0.4]]).double(), SIGMA + "weight": torch.tensor([[-0.7]]).double()}
    q = next(iter(module.at(learner._path(theta, Batch(x, y), create_graph=False), (2000,))))
    precision = math.exp(2 * 0.7) + 2 * float((x**2).sum())
    mean = (math.exp(2 * 0.7) * 0.4 + 2 * float((x * y).sum())) / precision
    assert q["weight"].item() == pytest.approx(mean, abs=1e-6)
    assert math.exp(2 * q[SIGMA + "weight"].item()) == pytest.approx(1 / precision, rel=1e-3)


def test_meta_gradient_against_autograd_by_hand(make_case, by_hand, relative_error):
    """Second order through two steps, KL and hyper-prior included; only the draws are the library's."""
    case = make_case("abml", kl_inner=0.05, kl_outer=0.02, prior_weight=0.01, gamma_shape=2.0)
    point = {name: value.clone().requires_grad_() for name, value in case.params.items()}
    names = [name for name in point if not name.startswith(SIGMA)]
    (sx, sy), (qx, qy), _ = case.episode
    sizes = [point[name].numel() for name in names]

    def loss(q, x, y, seed, stream):
        total = 0
        for index in range(2):
            noise = module.normal(seed, (stream << 16) + index, sum(sizes)).split(sizes)
            w = {n: q[n] + q[SIGMA + n].exp() * e.view(q[n].shape) for n, e in zip(names, noise, strict=True)}
            total = total + nn.functional.cross_entropy(by_hand(w, x), y) / 2
        return total

    def kl(q):
        return sum(
            (
                point[SIGMA + n]
                - q[SIGMA + n]
                + ((2 * q[SIGMA + n]).exp() + (q[n] - point[n]) ** 2) / (2 * (2 * point[SIGMA + n]).exp())
                - 0.5
            ).sum()
            for n in names
        )

    q = dict(point)
    for count in range(2):
        inner = loss(q, sx, sy, module.task_seed(sx), count) + 0.05 * kl(q)
        slopes = torch.autograd.grad(inner, list(q.values()), create_graph=True)
        q = {name: value - 0.5 * slope for (name, value), slope in zip(q.items(), slopes, strict=True)}
    seed = module.task_seed(sx, qx)
    prior = sum(
        (point[n] ** 2).sum() / 2 + 2 * point[SIGMA + n].sum() + 0.01 * (-2 * point[SIGMA + n]).exp().sum()
        for n in names
    )
    outer = loss(q, torch.cat([sx, qx]), torch.cat([sy, qy]), seed, module.OUTER) + 0.02 * kl(q) + 0.01 * prior
    want = dict(zip(point, torch.autograd.grad(outer, list(point.values())), strict=True))
    grads, metrics = case.learner.meta_gradient(case.params, case.episode)
    assert relative_error(grads, want) < 1e-11
    assert set(metrics) == {"loss", "accuracy"} and not metrics["loss"].requires_grad


def test_the_predictive_mean_is_of_probabilities():
    one, two = torch.tensor([[2.0, 0.0]]), torch.tensor([[-1.0, 1.0]])
    mean = mean_prediction([one, two], TASKS["classification"]).exp()
    torch.testing.assert_close(mean, (one.softmax(dim=1) + two.softmax(dim=1)) / 2)
    assert torch.equal(mean_prediction([one, two], TASKS["regression"]), (one + two) / 2)


def test_draws_differ_between_tasks_and_not_between_calls(make_case):
    case = make_case("abml")
    first, second = case.episodes[:2]
    weights = [case.learner.adapt(case.params, task.support, 3, 0)["head.weight"] for task in (first, first, second)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    spread = torch.stack([weights[0].std(dim=0).mean(), torch.tensor(0.1, dtype=torch.float64)])
    assert 0.2 < float(spread[0] / spread[1]) < 2.5


def test_one_query_is_enough(make_case):
    case = make_case("abml")
    query = Batch(case.episode.query.x[:1], case.episode.query.y[:1])
    grads, _ = case.learner.meta_gradient(case.params, Episode(case.episode.support, query, case.episode.classes))
    assert all(torch.isfinite(value).all() for value in grads.values())
