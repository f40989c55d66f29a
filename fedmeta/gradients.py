"""One gradient call for both executions: eager autograd in a loop over tasks, `torch.func` inside `vmap`.

Learners are written once, against `value_and_grad`. Which engine runs beneath is decided by `fedmeta.execution`, which
holds `vectorised()` open while it maps a learner over tasks. An eager loop is the faster of the two outside `vmap`, and
spares a worker the two seconds in which `torch.func.grad` imports the compiler.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from fedmeta.params import Params

_VECTORISED: ContextVar[bool] = ContextVar("fedmeta_vectorised", default=False)


@contextmanager
def vectorised() -> Iterator[None]:
    """Within this block gradients are taken by `torch.func`, the only kind that `vmap` can batch."""
    token = _VECTORISED.set(True)
    try:
        yield
    finally:
        _VECTORISED.reset(token)


def value_and_grad(
    function: Callable[[Params], tuple[Tensor, Any]], params: Mapping[str, Tensor], *, create_graph: bool = False
) -> tuple[Params, Tensor, Any]:
    """The gradient of a scalar function of named tensors, with its value.

    Args:
        function: params -> (scalar value, aux), where aux is a nest of tensors (tuples, lists, dicts), `()` for none.
        params: the point; never changed.
        create_graph: keep the result differentiable, so that an outer `value_and_grad` sees through it (second
            order). Without it everything returned is detached, and an outer gradient takes it for a constant.

    Returns:
        (gradients shaped as params, value, aux). A parameter that the value does not depend on has gradient zero.

    >>> grads, value, _ = value_and_grad(lambda p: ((p["w"] ** 2).sum(), ()), {"w": torch.tensor([1.0, -3.0])})
    >>> grads["w"].tolist(), value.item()
    ([2.0, -6.0], 10.0)
    """
    if _VECTORISED.get():
        return _functional(function, params, create_graph)
    return _eager(function, params, create_graph)


def _eager(
    function: Callable[[Params], tuple[Tensor, Any]], params: Mapping[str, Tensor], create_graph: bool
) -> tuple[Params, Tensor, Any]:
    # A point that is already part of an outer graph must stay so for second order; else a leaf cuts the graph short.
    attached = {
        name: value if create_graph and value.requires_grad else value.detach().requires_grad_()
        for name, value in params.items()
    }
    with torch.enable_grad():
        value, aux = function(attached)
        if value.requires_grad:
            found = torch.autograd.grad(
                value, tuple(attached.values()), create_graph=create_graph, materialize_grads=True
            )
        else:  # nothing depends on anything, which autograd refuses to differentiate
            found = tuple(torch.zeros_like(value) for value in attached.values())
    grads = dict(zip(attached, found, strict=True))
    return (grads, value, aux) if create_graph else (grads, value.detach(), detach(aux))


def _functional(
    function: Callable[[Params], tuple[Tensor, Any]], params: Mapping[str, Tensor], create_graph: bool
) -> tuple[Params, Tensor, Any]:
    point = dict(params) if create_graph else detach(dict(params))
    grads, (value, aux) = torch.func.grad_and_value(function, has_aux=True)(point)
    return (grads, value, aux) if create_graph else (detach(grads), value.detach(), detach(aux))


def detach(nest: Any) -> Any:
    """A nest of tensors (tuples, named tuples, lists, dicts; anything else passes) without its graph."""
    if isinstance(nest, Tensor):
        return nest.detach()
    if isinstance(nest, Mapping):
        return {name: detach(value) for name, value in nest.items()}
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        return type(nest)(*(detach(value) for value in nest))
    if isinstance(nest, (tuple, list)):
        return type(nest)(detach(value) for value in nest)
    return nest
