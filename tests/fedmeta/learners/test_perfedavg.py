"""Per-FedAvg: HF against the exact Hessian-vector product, FO without it, and FedAvg as their limit."""

import pytest
import torch
from torch import nn

from fedmeta.learners import make_learner
from fedmeta.tasks import Batch, Episode

ALPHA = 0.5


def exact(case, hessian):
    """(I - alpha H(w; D'')) grad f(w~; D') with the Hessian written out; without it for FO."""
    names, sizes = list(case.params), [value.numel() for value in case.params.values()]

    def loss(vector, x, y):
        pieces = {n: p.reshape(case.params[n].shape) for n, p in zip(names, vector.split(sizes), strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(case.model, pieces, (x,)), y)

    (sx, sy), (qx, qy), _ = case.episode
    first, second = (qx[:5], qy[:5]), (qx[5:], qy[5:])
    w = torch.cat([value.flatten() for value in case.params.values()])
    slope = torch.func.grad(loss)(w - ALPHA * torch.func.grad(loss)(w, sx, sy), *first)
    if hessian:
        slope = slope - ALPHA * torch.func.hessian(loss)(w, *second) @ slope
    return dict(zip(names, slope.split(sizes), strict=True))


@pytest.mark.parametrize(("variant", "bound"), [("fo", 1e-14), ("hf", 1e-9)])
def test_against_the_exact_hessian(make_case, relative_error, variant, bound):
    """Nine queries: five are D', four D''."""
    case = make_case("perfedavg", inner_lr=ALPHA, variant=variant)
    grads, metrics = case.learner.meta_gradient(case.params, case.episode)
    want = exact(case, variant == "hf")
    assert relative_error({name: value.flatten() for name, value in grads.items()}, want) < bound
    assert set(metrics) == {"loss", "accuracy"} and not metrics["loss"].requires_grad


def test_the_difference_is_fit_for_float32(make_case, relative_error):
    case = make_case("perfedavg", inner_lr=ALPHA, variant="hf")
    double, _ = case.learner.meta_gradient(case.params, case.episode)
    case.model.float()
    episode = Episode(*(Batch(b.x.float(), b.y) for b in case.episode[:2]), case.episode.classes)
    single, _ = case.learner.meta_gradient({name: value.float() for name, value in case.params.items()}, episode)
    assert relative_error({name: value.double() for name, value in single.items()}, double) < 1e-4


def test_on_a_quadratic_the_product_is_exact():
    """Least squares: the gradient is linear, so that a central difference of any length is H v."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    task = Episode(Batch(draw(6, 4), draw(6, 1)), Batch(draw(8, 4), draw(8, 1)), torch.zeros(0).long())
    w = draw(1, 4)
    learner = make_learner("perfedavg", nn.Linear(4, 1, bias=False).double(), "regression", inner_lr=0.1)
    grads, _ = learner.meta_gradient({"weight": w}, task)

    def slope(at, x, y):
        return 2 * (x @ at.T - y).T @ x / len(x)

    (sx, sy), (qx, qy), _ = task
    adapted = w - 0.1 * slope(w, sx, sy)
    v = slope(adapted, qx[:4], qy[:4])
    want = v - 0.1 * v @ (2 * qx[4:].T @ qx[4:] / 4)
    torch.testing.assert_close(grads["weight"], want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", ["fo", "hf"])
def test_with_one_batch_and_alpha_to_zero_it_is_fedavg(make_case, relative_error, variant):
    case = make_case("perfedavg", inner_lr=1e-9, variant=variant, batches="shared")
    episode = case.episode._replace(support=case.episode.query)
    grads, _ = case.learner.meta_gradient(case.params, episode)
    case.model.load_state_dict(case.params)
    loss = nn.functional.cross_entropy(case.model(episode.query.x), episode.query.y)
    plain = torch.autograd.grad(loss, list(case.model.parameters()))
    assert relative_error(grads, dict(zip(case.params, plain, strict=True))) < 1e-7


def test_one_query_serves_for_both(make_case):
    case = make_case("perfedavg")
    query = Batch(case.episode.query.x[:1], case.episode.query.y[:1])
    grads, _ = case.learner.meta_gradient(case.params, case.episode._replace(query=query))
    assert all(torch.isfinite(value).all() for value in grads.values())


def test_a_gradient_of_zero_stays_zero():
    """A fit without error: no direction for the difference, and no NaN."""
    x = torch.eye(2, dtype=torch.float64)
    task = Episode(Batch(x, x[:, :1]), Batch(x, x[:, :1]), torch.zeros(0).long())
    learner = make_learner("perfedavg", nn.Linear(2, 1, bias=False).double(), "regression")
    grads, _ = learner.meta_gradient({"weight": torch.tensor([[1.0, 0.0]], dtype=torch.float64)}, task)
    assert torch.equal(grads["weight"], torch.zeros(1, 2, dtype=torch.float64))
