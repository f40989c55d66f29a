"""The LSTM meta-learner (Ravi and Larochelle 2017): a learned cell that all weights share is the inner optimiser."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.gradients import value_and_grad
from fedmeta.learners.functional import forward, part
from fedmeta.learners.maml import MAML
from fedmeta.models.initialise import initialise
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.tasks import Batch

CELL = "cell."
"""Prefix of the optimiser's own parameters; the others are c0, the initial weights."""
INPUTS = 6
"""What a gate sees of a coordinate: gradient (2), loss (2), weight, and itself a step ago."""
P = 10.0
"""Of the preprocessing: magnitudes below e^-p are told by their value, others by their logarithm."""


@dataclass(frozen=True)
class LSTMMeta(MAML):
    """Gradient descent whose rate and decay are gates of a learned cell (Ravi and Larochelle 2017, section 3).

    c_t = f_t * c_{t-1} - i_t * grad_t for each weight, where i_t = sigmoid(W_I [grad, loss, c_{t-1}, i_{t-1}] + b_I),
    f_t alike; gradient and loss are preprocessed as in section 3.2. What travels is c_0, the initial weights, and the
    cell's 14 parameters. Gradients and losses of the learner are constants to the meta-gradient (section 3.3: first
    order). The gates read the inputs directly: the paper's further LSTM layer below them is left out. The support is
    one batch at every step.
    """

    inner_steps: int = parameter(5, doc="inner steps in training", unit="steps", ge=0)
    serves: ClassVar[tuple[str, ...]] = ("classification", "regression")

    inner_lr: float = parameter(0.01, doc="the input gate at first, which is the inner loop's step size", gt=0, lt=1)
    forget_bias: float = parameter(5.0, doc="of the forget gate at first; 5 keeps 99.3 % of a weight at every step")

    def init(self, generator: torch.Generator) -> Params:
        """The network's own initialisation as c_0, and a cell whose gates do not depend much on their inputs yet."""
        theta = initialise(self.model, generator)
        biases = {"forget": self.forget_bias, "input": math.log(self.inner_lr / (1 - self.inner_lr))}
        for gate, bias in biases.items():
            theta[f"{CELL}{gate}.weight"] = 0.01 * (2 * torch.rand(INPUTS, generator=generator) - 1)
            theta[f"{CELL}{gate}.bias"] = torch.tensor([bias])
        return theta

    def _path(self, params: Params, support: Batch, *, create_graph: bool) -> Iterator[Params]:
        c = {name: value for name, value in params.items() if not name.startswith(CELL)}
        cell = part(params, CELL)
        if not create_graph:
            c, cell = ({name: value.detach() for name, value in nest.items()} for nest in (c, cell))
        zero = {name: torch.zeros_like(value) for name, value in c.items()}
        forget, entering = zero, zero

        def loss(p: Params) -> tuple[Tensor, tuple[()]]:
            return self.task.loss(forward(self.model, p, support.x), support.y), ()

        while True:
            yield c
            # Detached both, as the paper assumes.
            slopes, value, _ = value_and_grad(loss, c)
            seen = {name: _inputs(slopes[name], value, c[name]) for name in c}
            forget = {name: _gate(cell, "forget", seen[name], forget[name]) for name in c}
            entering = {name: _gate(cell, "input", seen[name], entering[name]) for name in c}
            c = {name: forget[name] * c[name] - entering[name] * slopes[name] for name in c}


def preprocessed(x: Tensor) -> tuple[Tensor, Tensor]:
    """(log|x| / p, sign x) where |x| >= e^-p, else (-1, e^p x) (section 3.2, equation 1 of the appendix).

    >>> [part.tolist() for part in preprocessed(torch.tensor([-1.0, 0.0]))]
    [[0.0, -1.0], [-1.0, 0.0]]
    """
    size = x.abs()
    large = size >= math.exp(-P)
    logarithm = torch.where(large, size, torch.ones_like(size)).log() / P
    return torch.where(large, logarithm, -torch.ones_like(x)), torch.where(large, x.sign(), math.exp(P) * x)


def _inputs(slope: Tensor, loss: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    of_loss = [value.expand_as(weight) for value in preprocessed(loss)]
    return (*preprocessed(slope), *of_loss, weight)


def _gate(cell: Params, name: str, seen: tuple[Tensor, ...], before: Tensor) -> Tensor:
    """The gate of every coordinate, shaped as a weight."""
    weights = cell[f"{name}.weight"].unbind(-1)
    total = cell[f"{name}.bias"].squeeze(-1) + weights[-1] * before
    for weight, value in zip(weights, seen, strict=False):
        total = total + weight * value
    return total.sigmoid()
