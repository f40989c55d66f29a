"""Maximum softmax probability (Hendrycks and Gimpel, ICLR 2017, section 3)."""

from dataclasses import dataclass

from torch import Tensor

from fedmeta.query_detection.base import NeedsNoFit, View


@dataclass(frozen=True)
class MaxSoftmax(NeedsNoFit):
    """1 - max over k of p(k | x), in [0, 1]."""

    def scores(self, view: View, x: Tensor) -> Tensor:
        """See `Detector`."""
        return 1 - view.logits(x).softmax(dim=-1).amax(dim=-1)
