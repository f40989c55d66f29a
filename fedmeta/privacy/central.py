"""The server's release: clipped contributions, summed, noised, divided by a cohort that does not depend on who came."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmeta.privacy.clipping import AdaptiveClip, clip_rows
from fedmeta.privacy.noise import Noise


@dataclass(frozen=True)
class Release:
    """One round's release.

    Attributes:
        vector: `[D]`, float64, the noised mean over the fixed cohort.
        clip_norm: C that was used.
        clipped: share of contributions that were clipped; 0 where there were none. Not protected by the noise.
    """

    vector: Tensor
    clip_norm: float
    clipped: float


@dataclass
class CentralGaussian:
    """Sum of clipped rows plus N(0, (z C)^2), over a fixed expected cohort (McMahan et al. 2018, algorithm 1).

    A round without contributions releases noise, since the accounting counts it. Of the state only `clip_norm` lasts,
    and it moves only where clipping adapts.

    Attributes:
        clip_norm: C, > 0.
        noise_multiplier: z, >= 0.
        expected: the cohort to divide by, > 0.
        noise_of: round -> standard normal draws of that round.
        layers: sizes of the parts that are clipped apart; empty for one.
        adaptive: how C moves; None where it stays.
        unclipped: rows are sums that the clients clipped themselves to parts of C: they are taken as they are.
    """

    clip_norm: float
    noise_multiplier: float
    expected: float
    noise_of: Callable[[int], Noise]
    layers: Sequence[int] = ()
    adaptive: AdaptiveClip | None = None
    unclipped: bool = False

    def release(self, rows: Tensor, round: int) -> Release:
        """Release the sum of rows `[n, D]`, n >= 0."""
        norm, noise = self.clip_norm, self.noise_of(round)
        if self.unclipped:
            clipped, norms = rows.to(torch.float64), torch.zeros(len(rows), dtype=torch.float64)
        else:
            clipped, norms = clip_rows(rows, norm, self.layers)
        total = torch.zeros(rows.shape[1], dtype=torch.float64)
        for row in clipped:
            total += row
        z = self.adaptive.sum_multiplier if self.adaptive is not None else self.noise_multiplier
        noised = total.add_(noise(len(total)), alpha=z * norm)
        if self.adaptive is not None:
            self.clip_norm = self.adaptive.next(norm, norms, float(noise(1)))
        share = float((norms > norm).to(torch.float64).mean()) if len(norms) else 0.0
        return Release(noised / self.expected, norm, share)
