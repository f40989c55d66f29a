"""Optimisers as pure functions of flat tensors: local steps of a client or a cohort, and the server's step.

A *gradient* is what is descended. A server passes minus the aggregated update (Reddi et al. 2021, algorithm 2, where
Delta_t = -gradient), so that one implementation serves both ends. All arithmetic is elementwise: tensors of any leading
axes work, `[D]` at the server, `[C, D]` for a cohort, and rows never influence each other.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from fedmeta.parameters import parameter
from fedmeta.registry import Entry, Registry

if TYPE_CHECKING:
    from torch import Tensor

OptimiserState = dict[str, "Tensor"]
"""Named tensors, among them `step`, the number of steps taken (int64 scalar): all that a checkpoint needs."""

OPTIMISERS = Registry(
    "optimisers",
    {
        "sgd": Entry(
            "fedmeta.optimisers:SGD", "gradient descent, with momentum if wished", "Reddi et al. 2021: FedAvg, FedAvgM"
        ),
        "adam": Entry(
            "fedmeta.optimisers:Adam",
            "steps scaled by running second moments",
            "Kingma & Ba 2015; Reddi et al. 2021: FedAdam",
        ),
        "yogi": Entry(
            "fedmeta.optimisers:Yogi",
            "Adam whose second moment changes additively",
            "Zaheer et al. 2018; Reddi et al. 2021: FedYogi",
        ),
        "adagrad": Entry(
            "fedmeta.optimisers:Adagrad",
            "steps scaled by the sum of squares",
            "Duchi et al. 2011; Reddi et al. 2021: FedAdagrad",
        ),
    },
)


class Optimiser(Protocol):
    """A pure optimiser: state and gradient in, new state and change out."""

    def init(self, vector: "Tensor") -> OptimiserState:
        """The state before the first step on tensors like `vector`."""
        ...

    def step(self, state: OptimiserState, gradient: "Tensor", scale: float = 1.0) -> "tuple[OptimiserState, Tensor]":
        """The state after one step, and the change: the new vector is `vector + change`.

        Args:
            state: from `init` or the previous step; not modified.
            gradient: what to descend, shaped as the vector.
            scale: multiplies the learning rate (see `schedule`); 0 still updates the moments.
        """
        ...


@dataclass(frozen=True)
class SGD:
    """m = momentum * m + g; change = -lr * m (PyTorch's form, without dampening or Nesterov).

    >>> import torch
    >>> optimiser = SGD(lr=0.1, momentum=0.5)
    >>> state, change = optimiser.step(optimiser.init(torch.zeros(1)), torch.ones(1))
    >>> state, change = optimiser.step(state, torch.ones(1))
    >>> round(change.item(), 6)
    -0.15
    """

    lr: float = parameter(1.0, doc="step size", ge=0)
    momentum: float = parameter(0.0, doc="share of the last direction that is kept", ge=0, lt=1)

    def init(self, vector: "Tensor") -> OptimiserState:
        """`step`, and `momentum` where there is some."""
        return _initial(vector, {"momentum": 0.0} if self.momentum else {})

    def step(self, state: OptimiserState, gradient: "Tensor", scale: float = 1.0) -> "tuple[OptimiserState, Tensor]":
        """See `Optimiser.step`."""
        new = {"step": state["step"] + 1}
        if self.momentum:
            gradient = new["momentum"] = self.momentum * state["momentum"] + gradient
        return new, gradient * (-self.lr * scale)


@dataclass(frozen=True)
class Adam:
    """m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; change = -lr m / (sqrt(v) + eps).

    With `bias_correction` (Kingma & Ba 2015, algorithm 1) m and v are divided by 1 - beta^t first. FedAdam (Reddi
    et al. 2021, algorithm 2) is without, eps being their tau = 1e-3, and starts from v = tau^2: `initial = 1e-6`.
    """

    lr: float = parameter(1e-3, doc="step size", ge=0)
    beta1: float = parameter(0.9, doc="decay of the first moment", ge=0, lt=1)
    beta2: float = parameter(0.999, doc="decay of the second moment", ge=0, lt=1)
    eps: float = parameter(1e-8, doc="added to the root of the second moment (tau in FedOpt)", gt=0)
    bias_correction: bool = parameter(True, doc="divide both moments by 1 - beta^t")
    initial: float = parameter(0.0, doc="second moment before the first step (FedOpt: tau^2)", ge=0)

    def init(self, vector: "Tensor") -> OptimiserState:
        """`step`, and the moments `first` and `second`."""
        return _initial(vector, {"first": 0.0, "second": self.initial})

    def step(self, state: OptimiserState, gradient: "Tensor", scale: float = 1.0) -> "tuple[OptimiserState, Tensor]":
        """See `Optimiser.step`."""
        count = state["step"] + 1
        first = self.beta1 * state["first"] + (1 - self.beta1) * gradient
        second = self.beta2 * state["second"] + (1 - self.beta2) * gradient * gradient
        m, v = first, second
        if self.bias_correction:
            m, v = first / _correction(self.beta1, count, first), second / _correction(self.beta2, count, second)
        return {"step": count, "first": first, "second": second}, m * (-self.lr * scale) / (v.sqrt() + self.eps)


@dataclass(frozen=True)
class Yogi:
    """As Adam without bias correction, but v = v - (1 - beta2) g^2 sign(v - g^2): v shrinks slowly when gradients do.

    Zaheer et al. 2018, algorithm 2; FedYogi of Reddi et al. 2021, algorithm 2, whose tau is `eps` and whose v starts
    from tau^2.
    """

    lr: float = parameter(1e-2, doc="step size", ge=0)
    beta1: float = parameter(0.9, doc="decay of the first moment", ge=0, lt=1)
    beta2: float = parameter(0.999, doc="decay of the second moment", ge=0, lt=1)
    eps: float = parameter(1e-3, doc="added to the root of the second moment (tau in FedOpt)", gt=0)
    initial: float = parameter(1e-6, doc="second moment before the first step (FedOpt: tau^2)", ge=0)

    def init(self, vector: "Tensor") -> OptimiserState:
        """`step`, and the moments `first` and `second`."""
        return _initial(vector, {"first": 0.0, "second": self.initial})

    def step(self, state: OptimiserState, gradient: "Tensor", scale: float = 1.0) -> "tuple[OptimiserState, Tensor]":
        """See `Optimiser.step`."""
        first = self.beta1 * state["first"] + (1 - self.beta1) * gradient
        square = gradient * gradient
        second = state["second"] - (1 - self.beta2) * square * (state["second"] - square).sign()
        new = {"step": state["step"] + 1, "first": first, "second": second}
        return new, first * (-self.lr * scale) / (second.sqrt() + self.eps)


@dataclass(frozen=True)
class Adagrad:
    """v = v + g^2; m = beta1 m + (1 - beta1) g; change = -lr m / (sqrt(v) + eps).

    Duchi et al. 2011, and with beta1 = 0 the FedAdagrad of Reddi et al. 2021, algorithm 2, whose v starts from tau^2.
    """

    lr: float = parameter(1e-2, doc="step size", ge=0)
    beta1: float = parameter(0.0, doc="decay of the first moment", ge=0, lt=1)
    eps: float = parameter(1e-10, doc="added to the root of the sum of squares (tau in FedOpt)", gt=0)
    initial: float = parameter(0.0, doc="sum of squares before the first step (FedOpt: tau^2)", ge=0)

    def init(self, vector: "Tensor") -> OptimiserState:
        """`step`, `second`, and `first` where beta1 is not 0."""
        return _initial(vector, {"first": 0.0, "second": self.initial} if self.beta1 else {"second": self.initial})

    def step(self, state: OptimiserState, gradient: "Tensor", scale: float = 1.0) -> "tuple[OptimiserState, Tensor]":
        """See `Optimiser.step`."""
        new = {"step": state["step"] + 1, "second": state["second"] + gradient * gradient}
        if self.beta1:
            gradient = new["first"] = self.beta1 * state["first"] + (1 - self.beta1) * gradient
        return new, gradient * (-self.lr * scale) / (new["second"].sqrt() + self.eps)


def _initial(vector: "Tensor", values: dict[str, float]) -> OptimiserState:
    import torch  # here, so that listing the registry loads no torch

    state = {name: torch.full_like(vector, value) for name, value in values.items()}
    return {"step": torch.zeros((), dtype=torch.int64, device=vector.device), **state}


def _correction(beta: float, count: "Tensor", like: "Tensor") -> "Tensor":
    # In float64 first: in float32 1 - 0.999^t loses four digits at t = 1.
    return (1 - beta ** count.double()).to(like.dtype)


Schedule = Literal["constant", "linear", "cosine"]


def schedule(name: Schedule, fraction: float) -> float:
    """The multiplier of a learning rate when `fraction` of the run, in [0, 1], is done.

    constant: 1; linear: 1 - f, as Reptile's meta-step; cosine: (1 + cos(pi f)) / 2.

    Raises:
        ValueError: an unknown name, or a fraction outside [0, 1].

    >>> [schedule(name, 0.5) for name in ("constant", "linear")], round(schedule("cosine", 0.5), 6)
    ([1.0, 0.5], 0.5)
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"the fraction of a run that is done lies in [0, 1], not {fraction}")
    multipliers = {"constant": 1.0, "linear": 1 - fraction, "cosine": (1 + math.cos(math.pi * fraction)) / 2}
    if name not in multipliers:
        raise ValueError(f"unknown schedule '{name}': use constant, linear or cosine")
    return multipliers[name]
