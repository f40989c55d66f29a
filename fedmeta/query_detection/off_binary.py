"""How far pixels are from black and white."""

from dataclasses import dataclass

from torch import Tensor

from fedmeta.query_detection.base import NeedsNoFit, View


@dataclass(frozen=True)
class OffBinary(NeedsNoFit):
    """The mean over pixels of min(|x|, |1 - x|).

    A sanity baseline: on binary pictures it finds nearly every attack, since no clean input has a grey pixel. That says
    something of the pictures, and nothing of defences.
    """

    def scores(self, view: View, x: Tensor) -> Tensor:
        """See `Detector`."""
        return x.abs().minimum((1 - x).abs()).flatten(1).mean(dim=1)
