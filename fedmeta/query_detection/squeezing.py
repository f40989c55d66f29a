"""Feature squeezing (Xu et al., NDSS 2018, section IV): how far the answer moves when the input is made simpler."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from fedmeta.query_detection.base import NeedsNoFit, View


@dataclass(frozen=True)
class Squeezing(NeedsNoFit, ABC):
    """||p(x) - p(squeeze(x))||_1, in [0, 2]."""

    @abstractmethod
    def squeeze(self, x: Tensor) -> Tensor:
        """A simpler input, shaped alike."""

    def scores(self, view: View, x: Tensor) -> Tensor:
        """See `Detector`."""
        plain, squeezed = (view.logits(each).softmax(dim=-1) for each in (x, self.squeeze(x)))
        return (plain - squeezed).abs().sum(dim=-1)


@dataclass(frozen=True)
class OneBit(Squeezing):
    """Pixels rounded to 0 or 1. On pictures that are so anyway it undoes every attack below 1/2, and shows nothing."""

    def squeeze(self, x: Tensor) -> Tensor:
        """Straight-through: rounded, with the gradient of the identity (Athalye et al. 2018, section 4.1)."""
        return x + (x.detach().clamp(0, 1).round() - x.detach())


@dataclass(frozen=True)
class Median(Squeezing):
    """Each pixel the median of the 3x3 about it, of `[n, channels, height, width]` with mirrored edges."""

    def squeeze(self, x: Tensor) -> Tensor:
        """The filtered picture; a gradient reaches the pixel that is the median."""
        around = F.pad(x, (1, 1, 1, 1), mode="reflect").unfold(2, 3, 1).unfold(3, 3, 1)
        return around.flatten(-2).median(dim=-1).values
