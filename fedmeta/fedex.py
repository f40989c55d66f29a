"""FedEx: which of some configurations trains well, learnt in the same rounds as the model (Khodak et al. 2021, alg. 2).

A client draws a configuration from p, trains with it, and says what its model loses on fresh tasks. With a baseline b,
g_j = sum_i w_i (loss_i - b) 1[i drew j] / p_j is the gradient of the expected loss in p, and
p_j <- p_j exp(-eta g_j), normalised, with eta = sqrt(2 log c / sum over rounds of max_j g_j^2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedmeta.seeding import numpy_generator

REACH = 3.0
"""A loss lies at most so many times as far above the round's median as the least lies below it: one client that
diverged, or lies, would else set the running norm, and with it the step size, for ever. Nor does one lie further below
it than so many times the greatest above it, or the median's own size, which is at 0 for losses that are positive."""

LEAST_REACH = 0.1
"""Where half of the losses are the least: so large a share of it above it is still told apart."""


@dataclass(frozen=True)
class FedEx:
    """What is known of c configurations; values, never changed.

    Attributes:
        logits: float64 `[c]`, log p up to a constant.
        squares: sum over rounds of max_j g_j^2.
        baseline: mean loss of the last round; NaN before the first.
    """

    logits: Tensor
    squares: float = 0.0
    baseline: float = math.nan

    @classmethod
    def uniform(cls, count: int) -> "FedEx":
        """Before the first round."""
        return cls(torch.zeros(count, dtype=torch.float64))

    @property
    def probabilities(self) -> Tensor:
        """p, float64 `[c]`, > 0, of sum 1."""
        return self.logits.softmax(dim=0)

    @property
    def best(self) -> int:
        """The most probable configuration, the first where equal: the one that is used where nothing is drawn."""
        return int(self.logits.argmax())

    def learn(self, drawn: Sequence[int], losses: Sequence[float], weights: Sequence[float] | None = None) -> "FedEx":
        """After a round.

        The baseline is the mean of the round's own losses: for equal weights that is, up to a factor that the step
        size takes out, the mean of the *other* clients' losses, and so leaves the gradient without bias. A round of
        one client has the mean of the round before.

        Args:
            drawn: configuration of each client that answered.
            losses: theirs, >= 0; one that is not finite counts as the cap.
            weights: >= 0; None: equal.

        >>> after = FedEx.uniform(2).learn([0, 1], [1.0, 2.0])
        >>> [round(p, 3) for p in after.probabilities.tolist()], after.baseline
        ([0.913, 0.087], 1.5)
        """
        values = _capped(losses)
        w = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
        if not len(values) or not w.sum() > 0:
            return self
        w = w / w.sum()
        mean = float(w @ values)
        baseline = mean if len(values) > 1 else self.baseline
        if not math.isfinite(baseline):
            return FedEx(self.logits, self.squares, mean)
        gradient = np.zeros(len(self.logits))
        np.add.at(gradient, list(drawn), w * (values - baseline))
        gradient /= self.probabilities.numpy()
        steepest = float(np.max(np.abs(gradient)))
        squares = self.squares + steepest * steepest
        if not math.isfinite(squares):  # nothing is learnt of losses whose squares float64 does not hold
            return self
        if squares == 0:
            return FedEx(self.logits, 0.0, mean)
        eta = math.sqrt(2 * math.log(max(len(gradient), 2)) / squares)
        logits = self.logits - eta * torch.from_numpy(gradient)
        return FedEx(logits - logits.logsumexp(dim=0), squares, mean)

    def to_tensor(self) -> Tensor:
        """float64 `[c + 2]`, which `from_tensor` reads."""
        return torch.cat([self.logits, torch.tensor([self.squares, self.baseline], dtype=torch.float64)])

    @classmethod
    def from_tensor(cls, state: Tensor) -> "FedEx":
        """The inverse of `to_tensor`."""
        return cls(state[:-2].clone(), float(state[-2]), float(state[-1]))


def draw(probabilities: Sequence[float], seed: int, round: int, client: int) -> int:
    """The configuration of a client in a round; client and server work it out alike.

    >>> draw([0.0, 1.0, 0.0], seed=0, round=1, client=7)
    1
    """
    edges = np.cumsum(np.asarray(probabilities, dtype=np.float64))
    point = numpy_generator(seed, round, client, "configuration").random() * edges[-1]
    return int(min(np.searchsorted(edges, point, side="right"), len(edges) - 1))


def _capped(losses: Sequence[float]) -> np.ndarray:
    """The losses between floor and cap; empty where none is finite."""
    values = np.asarray(losses, dtype=np.float64)
    values = np.where(np.isnan(values), np.inf, values)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return finite
    greatest = float(finite.max())
    middle = min(float(np.median(values)), greatest)
    floor = middle - max(REACH * (greatest - middle), abs(middle))
    least = max(float(finite.min()), floor)
    cap = middle + max(REACH * (middle - least), LEAST_REACH * abs(least))
    return np.clip(values, floor, cap)
