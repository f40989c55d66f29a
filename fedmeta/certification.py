"""Randomised smoothing (Cohen et al., ICML 2019): answers that no change within an L2 ball can alter, with confidence.

The smoothed model answers an input x with the class that the model gives most often to x + N(0, sigma^2 I). Where the
probability of that class is at least pA > 1/2, no x' with ||x' - x||_2 < sigma Phi^-1(pA) is answered otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Predict = Callable[[Tensor], Tensor]
"""Inputs `[n, *input_shape]` to logits `[n, ways]`: an adapted model, whose support stays as it is."""

AT_ONCE = 1000
"""Noisy copies that a model is asked about at once."""

ABSTAINED = -1
"""The label of an input about which nothing can be said."""


@dataclass(frozen=True)
class Smoothing:
    """How an input is certified (Cohen et al. 2019, section 3.2.2).

    Attributes:
        sigma: > 0, standard deviation of the noise on every pixel, in units of the pixels.
        select: n0 >= 1, noisy copies by whose majority the class is chosen.
        count: n >= 1, other noisy copies, which bound that class' probability.
        alpha: in (0, 1), the probability that a certificate is wrong.
    """

    sigma: float
    select: int = 50
    count: int = 1000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        for name, valid in (
            ("sigma", self.sigma > 0),
            ("select", self.select >= 1),
            ("count", self.count >= 1),
            ("alpha", 0 < self.alpha < 1),
        ):
            if not valid:
                bound = {"sigma": "above 0", "alpha": "between 0 and 1"}.get(name, "1 or more")
                raise ValueError(f"{name} = {getattr(self, name)} must be {bound}")

    @property
    def largest(self) -> float:
        """The radius where every copy agrees: no more can be certified with so few copies."""
        return float(radii(np.array([self.count]), self)[0])


@dataclass(frozen=True)
class Certificates:
    """What is certain of n inputs.

    Attributes:
        labels: `[n]` int64, the smoothed model's answer, or `ABSTAINED`.
        radius: `[n]` float64, L2 in units of the pixels; 0 where it abstained.
    """

    labels: Tensor
    radius: Tensor

    def accuracy_at(self, y: Tensor, radii: Sequence[float]) -> Tensor:
        """`[len(radii)]`, the share of inputs that are certainly answered rightly within each radius.

        An abstention is wrong; at radius 0 it is the share of right answers that were given.
        """
        right = self.labels == y
        return torch.stack([(right & (self.radius >= each)).double().mean() for each in radii])


@torch.no_grad()
def certify(predict: Predict, x: Tensor, smoothing: Smoothing, generator: torch.Generator) -> Certificates:
    """Certify inputs one by one, each with noise of its own (Cohen et al. 2019, algorithm CERTIFY).

    Args:
        predict: of an example independently of the others beside it.
        x: `[n, *input_shape]`; the noise is not clipped to the range of pixels, else the theorem would not hold.
        smoothing: how.
        generator: of the noise, on the CPU.
    """
    labels, agreeing = [], []
    for one in x:
        first = _votes(predict, one, smoothing.select, smoothing.sigma, generator)
        label = int(first.argmax())
        labels.append(label)
        agreeing.append(int(_votes(predict, one, smoothing.count, smoothing.sigma, generator)[label]))
    found = torch.from_numpy(radii(np.asarray(agreeing), smoothing))
    return Certificates(torch.where(found > 0, torch.tensor(labels), ABSTAINED), found)


def radii(agreeing: npt.NDArray[np.int_], smoothing: Smoothing) -> npt.NDArray[np.float64]:
    """`[n]`, sigma Phi^-1(pA) where pA, the lower bound of the chosen class' probability, is above 1/2, else 0.

    >>> radii(np.array([100, 60]), Smoothing(sigma=0.5, count=100)).round(3).tolist()
    [0.75, 0.0]
    """
    from scipy.special import ndtri

    bound = lower_bound(agreeing, smoothing.count, smoothing.alpha)
    return np.where(bound > 0.5, smoothing.sigma * ndtri(np.maximum(bound, 0.5)), 0.0)


def lower_bound(successes: npt.NDArray[np.int_], trials: int, alpha: float) -> npt.NDArray[np.float64]:
    """The one-sided Clopper-Pearson lower bound of a probability at confidence 1 - alpha; 0 where nothing succeeded.

    >>> lower_bound(np.array([0, 10]), 10, 0.05).round(4).tolist()
    [0.0, 0.7411]
    """
    from scipy.special import betaincinv

    k = np.asarray(successes, dtype=np.float64)
    return np.where(k > 0, betaincinv(np.maximum(k, 1), trials - k + 1, alpha), 0.0)


def _votes(predict: Predict, one: Tensor, count: int, sigma: float, generator: torch.Generator) -> Tensor:
    """How many of `count` noisy copies of an input `[*input_shape]` get each class: `[ways]`."""
    votes: Tensor | None = None
    for start in range(0, count, AT_ONCE):
        size = min(AT_ONCE, count - start)
        noise = torch.randn((size, *one.shape), generator=generator).to(one)
        output = predict(one + sigma * noise)
        found = torch.bincount(output.argmax(dim=-1), minlength=output.shape[-1]).cpu()
        votes = found if votes is None else votes + found
    assert votes is not None
    return votes
