"""Gradients with each example clipped and noised (Abadi et al. 2016, algorithm 1): the step of DP-SGD.

The same numbers as Opacus' clipped and summed gradients, taken by `torch.func` on the raw network, so that learners
use it inside their own inner loops.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmeta.params import Params
from fedmeta.privacy.clipping import clipped_sum
from fedmeta.privacy.noise import Noise
from fedmeta.tasks import Batch

Loss = Callable[[Params, Batch], Tensor]
"""Parameters and a batch to the mean loss, a scalar; examples must not depend on one another within the network."""

ExampleGradient = Callable[[Loss, Params, Batch], Params]
"""A learner's replacement for the gradient of a mean loss, as `NoisyExamples` gives it."""


@dataclass(frozen=True)
class NoisyExamples:
    """Mean over a batch of per-example gradients, each clipped to C, with noise of standard deviation z C on their sum.

    Attributes:
        clip_norm: C > 0, over all parameters of an example's gradient together.
        noise_multiplier: z >= 0.
        noise: standard normal draws; fresh at every call.
    """

    clip_norm: float
    noise_multiplier: float
    noise: Noise

    def __call__(self, loss: Loss, params: Params, batch: Batch) -> Params:
        """The noised mean gradient, shaped as `params`. The number of examples is public; at least one."""
        detached = {name: value.detach() for name, value in params.items()}
        rows, shapes = example_rows(loss, detached, batch), {n: v.shape for n, v in detached.items()}
        total = clipped_sum(rows, self.clip_norm)
        draws = self.noise(total.numel()).to(total.device)
        mean = (total + self.noise_multiplier * self.clip_norm * draws) / len(rows)
        pieces = mean.to(rows.dtype).split([shape.numel() for shape in shapes.values()])
        return {name: piece.reshape(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)}


def example_rows(loss: Loss, params: Params, batch: Batch) -> Tensor:
    """The gradient of each example's own loss, flattened in the order of `params`: `[n, D]`."""

    def of_one(p: Params, x: Tensor, y: Tensor) -> Tensor:
        return loss(p, Batch(x.unsqueeze(0), y.unsqueeze(0)))

    grads = torch.vmap(torch.func.grad(of_one), in_dims=(None, 0, 0))(params, batch.x, batch.y)
    return torch.cat([grads[name].flatten(start_dim=1) for name in params], dim=1).detach()
