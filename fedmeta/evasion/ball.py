"""How far an attacker may move an input: a ball of a norm around it, cut by the range of inputs."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError, did_you_mean
from fedmeta.learners.draws import normal, uniform

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Ball:
    """The points within `eps` of an input in a norm, and within `[low, high]`.

    The norm is taken of each example by itself. All functions are free of data-dependent control flow, so that they run
    under `vmap`.

    Attributes:
        norm: `linf`, the largest change of a pixel; `l2`, the Euclidean length of the change.
        eps: radius, in units of pixels.
        low, high: the range of inputs.
        lead: axes before those of one example: 1 for `[n, *shape]`, 2 where each row is a set of examples.

    Raises:
        ConfigurationError: an unknown norm, a range that is empty, or a radius that is negative, not a number, or under
            Linf wider than the range.
    """

    norm: Norm = "linf"
    eps: float = 0.1
    low: float = 0.0
    high: float = 1.0
    lead: int = 1

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise ConfigurationError(f"unknown norm '{self.norm}'{did_you_mean(self.norm, get_args(Norm))}")
        if not self.low < self.high:
            raise ConfigurationError(f"inputs in [{self.low:g}, {self.high:g}]: low must be below high")
        if not 0 <= self.eps < math.inf:
            raise ConfigurationError(f"eps = {self.eps:g} is no radius: it must be 0 or more, and finite")
        if self.norm == "linf" and self.eps > self.high - self.low:
            raise ConfigurationError(
                f"eps = {self.eps:g} is above {self.high - self.low:g}, the whole range of an input under linf: every "
                f"picture is within reach. Choose 0 <= eps <= {self.high - self.low:g}, in units of pixels in "
                f"[{self.low:g}, {self.high:g}] (8/255 is 0.031)"
            )

    def project(self, x: Tensor, origin: Tensor) -> Tensor:
        """The point of the ball around `origin` nearest to x, or for `l2` near it; both `[*lead, *shape]`.

        For `l2` the change is shortened to eps and then cut to the range, which shortens it further.
        """
        change = x - origin
        if self.norm == "linf":
            change = change.clamp(-self.eps, self.eps)
        else:
            change = change * (self.eps / self._length(change).clamp_min(1e-12)).clamp_max(1.0)
        return (origin + change).clamp(self.low, self.high)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The change of norm 1 along which a gradient `[*lead, *shape]` rises most; zero where it is zero."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / self._length(gradient).clamp_min(1e-30)

    def random(self, origin: Tensor, seed: Tensor, stream: int) -> Tensor:
        """Points drawn evenly from the balls around `origin` `[*lead, *shape]`, then cut to the range.

        Args:
            origin: centres.
            seed: int64 `[]`; see `fedmeta.learners.draws`.
            stream: another one is another draw.
        """
        size = math.prod(origin.shape)
        if self.norm == "linf":
            change = self.eps * (2 * uniform(seed, 2 * stream, size).reshape(origin.shape) - 1)
        else:
            direction = normal(seed, 2 * stream, size).reshape(origin.shape)
            rows = origin.shape[: self.lead]
            radius = uniform(seed, 2 * stream + 1, math.prod(rows)) ** (1 / math.prod(origin.shape[self.lead :]))
            shape = (*rows, *[1] * (origin.dim() - self.lead))
            change = self.eps * radius.reshape(shape) * direction / self._length(direction)
        return self.project(origin + change.to(origin.dtype), origin)

    def distance(self, x: Tensor, origin: Tensor) -> Tensor:
        """The norm of the change of each example, `[*lead]`."""
        change = (x - origin).flatten(self.lead)
        return change.abs().amax(dim=-1) if self.norm == "linf" else change.norm(dim=-1)

    def _length(self, change: Tensor) -> Tensor:
        """Euclidean lengths, `[*lead, 1, ...]`."""
        flat = change.flatten(self.lead)
        # By hand: the gradient of `norm` is not asked for, and vmap batches this on every device.
        length = (flat * flat).sum(dim=-1).sqrt()
        return length.reshape(*length.shape, *[1] * (change.dim() - self.lead))


def check_inputs(x: Tensor, ball: Ball) -> None:
    """Refuse inputs that lie outside the range, of which no attack within it makes sense.

    Raises:
        ConfigurationError: names the range that was found.
    """
    low, high = float(x.min()), float(x.max())
    if not torch.isfinite(x).all() or low < ball.low or high > ball.high:
        raise ConfigurationError(
            f"inputs lie in [{low:g}, {high:g}], and an attack is confined to [{ball.low:g}, {ball.high:g}]: scale the "
            "data to this range"
        )
