"""iMAML (Rajeswaran et al. 2019): the meta-gradient of the proximal optimum itself, not of the path to it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.gradients import value_and_grad
from fedmeta.learners.base import Metrics, OuterLoss
from fedmeta.learners.functional import forward
from fedmeta.learners.inner_loop import descend, last
from fedmeta.learners.maml import MAML
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode


@dataclass(frozen=True)
class IMAML(MAML):
    """Implicit MAML (Rajeswaran et al. 2019, algorithms 1 and 2, equation 6).

    phi = argmin L_support(w) + lambda/2 ||w - theta||^2, approached by gradient descent from theta; the meta-gradient
    is (I + H/lambda)^-1 grad L_query(phi), H being the Hessian of the support's loss at phi, by conjugate gradients.
    Memory does not grow with `inner_steps`. It holds at the optimum only: with too few inner steps it is the gradient
    of something else. Where a direction's curvature is not positive the iteration stops, as in a truncated Newton step.
    """

    serves: ClassVar[tuple[str, ...]] = ("classification", "regression")

    inner_lr: float = parameter(0.1, doc="step size of the inner loop", gt=0)
    inner_steps: int = parameter(16, doc="inner steps in training", unit="steps", ge=0)
    regularisation: float = parameter(2.0, doc="lambda, of the pull towards the initialisation", gt=0)
    cg_steps: int = parameter(5, doc="conjugate gradient steps", unit="steps", ge=0)

    def query_gradient(self, params: Params, episode: Episode, outer: OuterLoss) -> tuple[Params, Metrics]:
        """(I + H/lambda)^-1 d/dphi of the outer loss at phi."""
        adapted = last(self._path(params, episode.support, create_graph=False), self.inner_steps)

        def objective(phi: Params) -> tuple[Tensor, Metrics]:
            return outer(self, phi, episode.query)

        slope, _, metrics = value_and_grad(objective, adapted)

        def product(v: Params) -> Params:
            curved = hessian_product(lambda w: self._support_loss(w, episode.support), adapted, v)
            return {name: value + curved[name] / self.regularisation for name, value in v.items()}

        return conjugate_gradients(product, slope, self.cg_steps), metrics

    def _path(self, params: Params, support: Batch, *, create_graph: bool) -> Iterator[Params]:
        centre = params if create_graph else {name: value.detach() for name, value in params.items()}

        def loss(w: Params) -> Tensor:
            away = sum(((w[name] - centre[name]) ** 2).sum() for name in w)
            return self._support_loss(w, support) + self.regularisation / 2 * away

        return descend(loss, params, self.inner_lr, create_graph=create_graph)

    def _support_loss(self, params: Params, support: Batch) -> Tensor:
        return self.task.loss(forward(self.model, params, support.x), support.y)


def hessian_product(loss: Callable[[Params], Tensor], point: Params, v: Params) -> Params:
    """The Hessian of `loss` at `point`, times `v`; both shaped as the result.

    >>> w, v = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([1.0, 0.0])}
    >>> hessian_product(lambda p: p["w"].prod() + (p["w"] ** 2).sum(), w, v)["w"].tolist()
    [2.0, 1.0]
    """

    def along(w: Params) -> tuple[Tensor, tuple[()]]:
        slope, _, _ = value_and_grad(lambda p: (loss(p), ()), w, create_graph=True)
        return _dot(slope, v), ()

    return value_and_grad(along, point)[0]


def conjugate_gradients(product: Callable[[Params], Params], b: Params, steps: int) -> Params:
    """`steps` steps towards the x for which product(x) = b, from x = b (Hestenes and Stiefel 1952).

    Exact after as many steps as the symmetric positive definite product has distinct eigenvalues. A step along a
    direction without positive curvature, or from an exact solution, is not taken. `steps = 0` gives b.

    >>> half = conjugate_gradients(lambda x: {"x": 2 * x["x"]}, {"x": torch.tensor([1.0, 3.0])}, 1)
    >>> half["x"].tolist()
    [0.5, 1.5]
    """
    x = b
    if not steps:
        return x
    found = product(x)
    residual = {name: value - found[name] for name, value in b.items()}
    direction, square = residual, _dot(residual, residual)
    for _ in range(steps):
        found = product(direction)
        size = _ratio(square, _dot(direction, found))
        x = {name: value + size * direction[name] for name, value in x.items()}
        residual = {name: value - size * found[name] for name, value in residual.items()}
        # No data-dependent branch, which vmap could not take: a size of zero leaves everything as it is.
        before, square = square, _dot(residual, residual)
        share = _ratio(square, before)
        direction = {name: residual[name] + share * value for name, value in direction.items()}
    return x


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b where b > 0, else 0."""
    positive = b > 0
    return torch.where(positive, a / torch.where(positive, b, torch.ones_like(b)), torch.zeros_like(a))


def _dot(a: Params, b: Params) -> Tensor:
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()
