"""The LSTM meta-learner: gates by hand, frozen gates as gradient descent and FOMAML, preprocessing, first order."""

import math

import pytest
import torch

from fedmeta.learners.inner_loop import step
from fedmeta.learners.lstm_meta import preprocessed


def cross_entropy(logits, y):
    return -(logits - logits.logsumexp(dim=1, keepdim=True))[torch.arange(len(y)), y].mean()


def unroll_by_hand(case, by_hand, point):
    """c_T element by element, the gates written out; inner gradients and losses are constants."""
    support = case.episode.support
    c = {name: value for name, value in point.items() if not name.startswith("cell.")}
    gates = {"forget": {name: torch.zeros_like(v) for name, v in c.items()}}
    gates["input"] = dict(gates["forget"])
    for _ in range(case.learner.inner_steps):
        fixed = {name: value.detach().requires_grad_() for name, value in c.items()}
        loss = cross_entropy(by_hand(fixed, support.x), support.y)
        slopes = dict(zip(fixed, torch.autograd.grad(loss, list(fixed.values())), strict=True))
        loss = loss.detach()
        big_loss = abs(float(loss)) >= math.exp(-10)
        of_loss = (math.log(abs(float(loss))) / 10, math.copysign(1, float(loss))) if big_loss else (-1.0, 0.0)
        moved = {}
        for name, value in c.items():
            flat, new = value.flatten(), {"forget": [], "input": []}
            for at in range(flat.numel()):
                g = float(slopes[name].flatten()[at])
                of_g = (
                    (math.log(abs(g)) / 10, math.copysign(1, g)) if abs(g) >= math.exp(-10) else (-1, math.exp(10) * g)
                )
                for gate in new:
                    before = gates[gate][name].flatten()[at]
                    inputs = [*of_g, *of_loss, flat[at], before]
                    total = sum(w * x for w, x in zip(point[f"cell.{gate}.weight"], inputs, strict=True))
                    new[gate].append(torch.sigmoid(total + point[f"cell.{gate}.bias"][0]))
            for gate, values in new.items():
                gates[gate] = {**gates[gate], name: torch.stack(values).view(value.shape)}
            moved[name] = gates["forget"][name] * value - gates["input"][name] * slopes[name]
        c = moved
    return c


def test_gates_and_meta_gradient_by_hand(make_case, by_hand, relative_error):
    """The network's and the cell's gradients; the gates depend on all six inputs."""
    case = make_case("lstm_meta")
    generator = torch.Generator().manual_seed(3)
    for name, value in case.params.items():
        if name.startswith("cell.") and name.endswith("weight"):
            value += 0.3 * torch.randn(6, generator=generator, dtype=torch.float64)
    point = {name: value.clone().requires_grad_() for name, value in case.params.items()}
    adapted = unroll_by_hand(case, by_hand, point)
    query = case.episode.query
    found = torch.autograd.grad(cross_entropy(by_hand(adapted, query.x), query.y), list(point.values()))
    want = dict(zip(point, found, strict=True))
    grads, _ = case.learner.meta_gradient(case.params, case.episode)
    assert relative_error(grads, want) < 1e-11
    own = case.learner.adapt(case.params, case.episode.support, 3)
    assert relative_error(own, {name: value.detach() for name, value in adapted.items()}) < 1e-12
    assert all(
        grads[f"cell.{gate}.{kind}"].abs().min() > 0 for gate in ("forget", "input") for kind in ("weight", "bias")
    )


def frozen(case, rate_logit):
    """Gates that see nothing: f = 1 to the last bit, i one number."""
    gates = {"cell.forget.weight": torch.zeros(6), "cell.input.weight": torch.zeros(6)}
    gates |= {"cell.forget.bias": torch.tensor([50.0]), "cell.input.bias": torch.tensor([rate_logit])}
    return {**case.params, **{name: value.double() for name, value in gates.items()}}


def test_with_frozen_gates_it_is_gradient_descent_bitwise_and_fomaml(make_case, relative_error):
    case = make_case("lstm_meta")
    params = frozen(case, math.log(0.25 / 0.75))
    rate = torch.sigmoid(params["cell.input.bias"])
    first = make_case("fomaml", inner_lr=float(rate))
    theta = {name: value for name, value in case.params.items() if not name.startswith("cell.")}
    want = theta
    for _ in range(case.learner.inner_steps):
        point = {name: value.clone().requires_grad_() for name, value in want.items()}
        output = torch.func.functional_call(case.model, point, (case.episode.support.x,))
        loss = torch.nn.functional.cross_entropy(output, case.episode.support.y)
        grads = dict(zip(point, torch.autograd.grad(loss, list(point.values())), strict=True))
        want = step(want, grads, dict.fromkeys(want, rate))
    adapted = case.learner.adapt(params, case.episode.support, 3)
    assert all(torch.equal(adapted[name], want[name]) for name in want)
    grads, _ = case.learner.meta_gradient(params, case.episode)
    reference, _ = first.learner.meta_gradient(theta, case.episode)
    assert relative_error({name: grads[name] for name in theta}, reference) < 1e-12


def test_preprocessing():
    """At the border both forms give (-1, +-1); beyond it the logarithm, below it the number times e^10."""
    x = torch.tensor([math.exp(-10), -math.exp(-10), math.exp(5), -1e-6, 0.0], dtype=torch.float64)
    size, sign = preprocessed(x)
    assert torch.allclose(size, torch.tensor([-1.0, -1.0, 0.5, -1.0, -1.0]).double())
    assert torch.allclose(sign, torch.tensor([1.0, -1.0, 1.0, -1e-6 * math.exp(10), 0.0]).double())
    assert torch.isfinite(torch.autograd.functional.jacobian(lambda v: preprocessed(v)[0], torch.zeros(2))).all()


def test_the_gates_begin_where_they_are_told(make_case):
    case = make_case("lstm_meta", inner_lr=0.01, forget_bias=5.0)
    assert torch.sigmoid(case.params["cell.input.bias"]).item() == pytest.approx(0.01, rel=1e-6)
    assert case.params["cell.forget.bias"].item() == 5.0
