"""The inner loop that learners share: gradient steps on a support set."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from torch import Tensor

from fedmeta.gradients import value_and_grad
from fedmeta.params import Params

State = TypeVar("State")


def descend(
    loss: Callable[[Params], Tensor], params: Params, lr: float | Mapping[str, Tensor], *, create_graph: bool = False
) -> Iterator[Params]:
    """Endless gradient descent: the parameters after 0, 1, 2, ... steps, the first being `params` itself.

    Args:
        loss: a scalar function of the parameters that move.
        params: where to start.
        lr: one step size, or one tensor per parameter (Meta-SGD).
        create_graph: keep the path differentiable (second order).

    >>> from torch import tensor
    >>> states = descend(lambda p: (p["w"] ** 2).sum(), {"w": tensor([1.0])}, 0.25)
    >>> [state["w"].item() for state in islice(states, 3)]
    [1.0, 0.5, 0.25]
    """
    while True:
        yield params
        grads, _, _ = value_and_grad(lambda p: (loss(p), ()), params, create_graph=create_graph)
        params = step(params, grads, lr)


def step(params: Params, grads: Params, lr: float | Mapping[str, Tensor]) -> Params:
    """One step of gradient descent, `params - lr * grads`."""
    if isinstance(lr, Mapping):
        return {name: value - lr[name] * grads[name] for name, value in params.items()}
    return {name: value.sub(grads[name], alpha=lr) for name, value in params.items()}


def last(states: Iterator[State], steps: int) -> State:
    """The state after `steps` steps; none further is computed."""
    return next(islice(states, steps, None))


def at(states: Iterator[State], steps: Sequence[int]) -> Iterator[State]:
    """The states after each of the ascending numbers of `steps`.

    >>> list(at(iter("abcdef"), (0, 2, 3)))
    ['a', 'c', 'd']
    """
    taken = -1
    for wanted in steps:
        if wanted > taken:
            state = next(islice(states, wanted - taken - 1, None))
            taken = wanted
        yield state
