"""`value_and_grad` in both engines: first order is detached, second order sees through, unused means zero."""

import pytest
import torch

from fedmeta.gradients import detach, value_and_grad, vectorised

torch.set_num_threads(1)
X = torch.tensor([1.5, -2.0, 0.5], dtype=torch.float64)


def through(engine, function, point):
    """Apply a function of params eagerly, or under vmap over a batch of two equal points (the first is returned)."""
    if engine == "loop":
        return function(point)
    with vectorised():
        batched = torch.vmap(function)({name: torch.stack([value, value]) for name, value in point.items()})
    return tuple(
        {name: part[0] for name, part in item.items()} if isinstance(item, dict) else item[0] for item in batched
    )


def cube(p):
    return (p["w"] ** 3).sum(), {"double": 2 * p["w"]}


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_first_order(engine):
    grads, value, aux = through(engine, lambda p: value_and_grad(cube, p), {"w": X})
    torch.testing.assert_close(grads["w"], 3 * X**2)
    torch.testing.assert_close(value, (X**3).sum())
    torch.testing.assert_close(aux["double"], 2 * X)
    assert not any(tensor.requires_grad for tensor in (grads["w"], value, aux["double"]))


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_second_order_through_an_inner_step(engine):
    def objective(p):
        grads, _, _ = value_and_grad(cube, p, create_graph=True)
        return ((p["w"] - 0.1 * grads["w"]) ** 2).sum(), {}

    grads, _, _ = through(engine, lambda p: value_and_grad(objective, p), {"w": X})
    torch.testing.assert_close(grads["w"], 2 * (X - 0.3 * X**2) * (1 - 0.6 * X))


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_first_order_within_an_outer_gradient_is_a_constant(engine):
    def objective(p):
        grads, value, aux = value_and_grad(cube, p)
        return ((p["w"] - 0.1 * grads["w"]) ** 2).sum() + value + aux["double"].sum(), {}

    grads, _, _ = through(engine, lambda p: value_and_grad(objective, p), {"w": X})
    torch.testing.assert_close(grads["w"], 2 * (X - 0.3 * X**2))


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_unused_is_zero(engine, create_graph):
    point = {"w": X, "unused": torch.ones(2, 2, dtype=torch.float64)}
    grads, _, _ = through(engine, lambda p: value_and_grad(cube, p, create_graph=create_graph), point)
    assert torch.equal(grads["unused"], torch.zeros(2, 2, dtype=torch.float64))
    torch.testing.assert_close(grads["w"].detach(), 3 * X**2)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_constant_has_gradient_zero(engine):
    grads, value, _ = through(engine, lambda p: value_and_grad(lambda q: (torch.ones(()), {}), p), {"w": X})
    assert torch.equal(grads["w"], torch.zeros_like(X)) and value == 1


def test_works_without_grad_mode():
    with torch.no_grad():
        grads, _, _ = value_and_grad(cube, {"w": X})
    torch.testing.assert_close(grads["w"], 3 * X**2)


def test_the_point_is_left_alone():
    point = {"w": X.clone()}
    value_and_grad(cube, point)
    assert not point["w"].requires_grad and point["w"].grad is None


def test_detach_keeps_the_nest():
    leaf = torch.ones(1, requires_grad=True)
    nest = detach({"a": (leaf * 2, [leaf]), "b": None})
    assert nest["b"] is None and isinstance(nest["a"], tuple)
    assert not nest["a"][0].requires_grad and not nest["a"][1][0].requires_grad
