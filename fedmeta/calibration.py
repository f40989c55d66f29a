"""How far predicted probabilities can be believed: Brier score, and confidence against accuracy in bins.

The negative log-likelihood is the loss itself: a classification learner's outputs are logits, and its cross-entropy is
the NLL in nats. Importing this loads no torch, since tables and reports read what a run left without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

BINS = 15
"""Of equal width over [0, 1]: bin b holds confidences in (b / 15, (b + 1) / 15] (Guo et al. 2017, section 2)."""

Bins = npt.NDArray[np.float64]
"""`[3, BINS]`: how many predictions lie in each bin, the sum of their confidences, and how many of them are right."""


def brier(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over `[n, ways]` logits of the squared distance between probabilities and the truth, in [0, 2] (Brier 1950).

    The sum is over all classes: twice the binary score where there are two.

    >>> import torch
    >>> brier(torch.tensor([[0.0, 0.0], [50.0, -50.0]]), torch.tensor([0, 1])).item()
    1.25
    """
    import torch

    truth = (y.unsqueeze(-1) == torch.arange(logits.shape[-1], device=y.device)).to(logits.dtype)
    return ((logits.softmax(dim=-1) - truth) ** 2).sum(dim=-1).mean()


def count_bins(logits: Tensor, y: Tensor) -> Tensor:
    """`[3, BINS]` of the predictions `[n, ways]` against slots `[n]`; see `Bins`. Runs under `vmap`.

    Confidence is the largest probability; the prediction is right where that is the true slot's, ties going to the
    lowest slot.

    >>> import torch
    >>> count_bins(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))[:, 7].tolist()
    [1.0, 0.5, 1.0]
    """
    import torch

    confidence, answer = logits.softmax(dim=-1).max(dim=-1)
    place = ((confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1)
    within = (place.unsqueeze(-1) == torch.arange(BINS, device=y.device)).to(logits.dtype)
    right = (answer == y).to(logits.dtype)
    return torch.stack([within.sum(dim=-2), confidence @ within, right @ within])


def calibration_error(bins: Bins | Sequence[Sequence[float]]) -> float:
    """Expected calibration error (Naeini et al. 2015): mean over predictions of |accuracy - confidence| of their bin.

    Counts of many episodes and clients are added before this is taken: the error of few predictions is mostly chance,
    and a mean of such errors too large.

    Args:
        bins: see `Bins`.

    Returns:
        In [0, 1]; NaN where nothing was predicted.

    >>> calibration_error([[2.0, 2.0], [0.5, 1.8], [1.0, 1.0]])
    0.325
    """
    counts, confidences, right = np.asarray(bins, dtype=np.float64)
    total = counts.sum()
    return float(np.abs(confidences - right).sum() / total) if total > 0 else float("nan")
