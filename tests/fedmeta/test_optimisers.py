"""Optimisers against torch.optim, Yogi against numpy; purity, rows, schedules."""

import numpy as np
import pytest
import torch

from fedmeta.errors import ConfigurationError
from fedmeta.optimisers import OPTIMISERS, SGD, Adagrad, Adam, Yogi, schedule

START = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
GRADIENTS = torch.randn(12, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def run(optimiser, start=START, gradients=GRADIENTS, scale=1.0):
    vector, state = start, optimiser.init(start)
    for gradient in gradients:
        state, change = optimiser.step(state, gradient, scale)
        vector = vector + change
    return vector


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SGD(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
        (SGD(lr=0.1, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        (Adam(lr=0.02, beta1=0.8, beta2=0.95), lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.8, 0.95))),
        (Adam(lr=0.02, beta1=0.0), lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.0, 0.999))),
        (Adagrad(lr=0.1), lambda p: torch.optim.Adagrad(p, lr=0.1)),
        (Adagrad(lr=0.1, initial=0.3), lambda p: torch.optim.Adagrad(p, lr=0.1, initial_accumulator_value=0.3)),
    ],
)
def test_equals_torch(ours, theirs):
    parameter = torch.nn.Parameter(START.clone())
    optimiser = theirs([parameter])
    for gradient in GRADIENTS:
        parameter.grad = gradient.clone()
        optimiser.step()
    torch.testing.assert_close(run(ours), parameter.detach(), rtol=1e-13, atol=1e-14)


def fedopt_by_hand(rule, lr, beta1, beta2, tau):
    """Reddi et al. 2021, algorithm 2, with Delta = -gradient."""
    x, m, v = START.numpy().copy(), np.zeros(7), np.full(7, tau**2)
    for gradient in GRADIENTS.numpy():
        delta = -gradient
        m = beta1 * m + (1 - beta1) * delta
        if rule == "adagrad":
            v = v + delta**2
        elif rule == "yogi":
            v = v - (1 - beta2) * delta**2 * np.sign(v - delta**2)
        else:
            v = beta2 * v + (1 - beta2) * delta**2
        x = x + lr * m / (np.sqrt(v) + tau)
    return torch.from_numpy(x)


@pytest.mark.parametrize(
    ("rule", "optimiser"),
    [
        ("yogi", Yogi(lr=0.1, beta1=0.9, beta2=0.9, eps=1e-3, initial=1e-6)),
        ("adam", Adam(lr=0.1, beta1=0.9, beta2=0.9, eps=1e-3, initial=1e-6, bias_correction=False)),
        ("adagrad", Adagrad(lr=0.1, beta1=0.9, eps=1e-3, initial=1e-6)),
    ],
)
def test_equals_fedopt(rule, optimiser):
    torch.testing.assert_close(run(optimiser), fedopt_by_hand(rule, 0.1, 0.9, 0.9, 1e-3), rtol=1e-13, atol=1e-14)


ALL = [
    SGD(lr=0.1),
    SGD(lr=0.1, momentum=0.5),
    Adam(),
    Adam(bias_correction=False),
    Yogi(),
    Adagrad(),
    Adagrad(beta1=0.9),
]


@pytest.mark.parametrize("optimiser", ALL)
def test_rows_do_not_meet(optimiser):
    gradients = torch.stack([GRADIENTS, -3 * GRADIENTS], dim=1)
    both = run(optimiser, torch.stack([START, 2 * START]), gradients)
    torch.testing.assert_close(both[0], run(optimiser), rtol=1e-14, atol=0)
    torch.testing.assert_close(both[1], run(optimiser, 2 * START, -3 * GRADIENTS), rtol=1e-14, atol=0)


@pytest.mark.parametrize("optimiser", ALL)
def test_state_is_not_modified_and_can_be_resumed(optimiser):
    state = optimiser.init(START)
    for gradient in GRADIENTS[:3]:
        state, _ = optimiser.step(state, gradient)
    kept = {name: value.clone() for name, value in state.items()}
    first = optimiser.step(state, GRADIENTS[3])
    again = optimiser.step(kept, GRADIENTS[3])
    assert all(torch.equal(state[name], kept[name]) for name in kept)
    assert torch.equal(first[1], again[1]) and first[0].keys() == kept.keys()
    assert state["step"].item() == 3 and all(isinstance(value, torch.Tensor) for value in state.values())


@pytest.mark.parametrize("optimiser", ALL)
def test_scale_multiplies_the_step(optimiser):
    state = optimiser.init(START)
    _, whole = optimiser.step(state, GRADIENTS[0])
    _, half = optimiser.step(state, GRADIENTS[0], 0.5)
    _, none = optimiser.step(state, GRADIENTS[0], 0.0)
    torch.testing.assert_close(half, whole / 2)
    assert torch.count_nonzero(none) == 0


def test_a_step_size_of_zero_is_obeyed():
    assert torch.equal(run(SGD(lr=0.0)), START)


def test_registry():
    assert list(OPTIMISERS.entries()) == ["sgd", "adam", "yogi", "adagrad"]
    assert OPTIMISERS.make("adam", lr=1) == Adam(lr=1.0)
    with pytest.raises(ConfigurationError, match="did you mean 'momentum'"):
        OPTIMISERS.make("sgd", momentun=0.9)
    with pytest.raises(ConfigurationError, match=">= 0, < 1"):
        OPTIMISERS.make("sgd", momentum=1.0)


def test_schedules():
    assert [schedule("linear", fraction) for fraction in (0, 0.25, 1)] == [1, 0.75, 0]
    assert [round(schedule("cosine", fraction), 12) for fraction in (0, 0.5, 1)] == [1, 0.5, 0]
    assert schedule("constant", 0.9) == 1
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        schedule("linear", 1.5)
    with pytest.raises(ValueError, match="unknown schedule"):
        schedule("step", 0.5)
