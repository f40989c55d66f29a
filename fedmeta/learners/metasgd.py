"""Meta-SGD (Li et al. 2017): MAML that also learns the inner loop's step sizes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmeta.learners.functional import forward, part
from fedmeta.learners.inner_loop import descend
from fedmeta.learners.maml import MAML
from fedmeta.models.initialise import initialise
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.tasks import Batch

ALPHA = "alpha."
"""Prefix of step sizes among the meta-parameters: `alpha.head.weight` belongs to `head.weight`."""


@dataclass(frozen=True)
class MetaSGD(MAML):
    """A learned step size for every parameter (Li et al. 2017, algorithm 1).

    theta_i = theta_{i-1} - alpha * d L_support(theta_{i-1}), elementwise; the meta-gradient is the query loss's with
    respect to theta *and* alpha, both of which travel and are aggregated: twice MAML's vector. Alpha may change sign.
    The paper takes one inner step. Patterns of roles name both parts: a personal head is `head.*` and `alpha.head.*`.
    """

    inner_lr: float = parameter(0.4, doc="step size that every parameter starts with", gt=0)

    def init(self, generator: torch.Generator) -> Params:
        """The network's own initialisation, and `alpha.<name>` filled with `inner_lr` for each of its parameters."""
        theta = initialise(self.model, generator)
        return {**theta, **{ALPHA + name: torch.full_like(value, self.inner_lr) for name, value in theta.items()}}

    def _path(self, params: Params, support: Batch, *, create_graph: bool) -> Iterator[Params]:
        theta = {name: value for name, value in params.items() if not name.startswith(ALPHA)}

        def loss(p: Params) -> Tensor:
            return self.task.loss(forward(self.model, p, support.x), support.y)

        return descend(loss, theta, part(params, ALPHA), create_graph=create_graph)
