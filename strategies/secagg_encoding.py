"""What a round's groups sum, on the server's side: plain sums of updates, weights and metrics, or sums under noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedmeta.experiment import Experiment
from fedmeta.privacy import secagg_names as names
from fedmeta.privacy.distributed.adaptive import AdaptiveEncoder
from fedmeta.privacy.distributed.assumptions import survivors_needed
from fedmeta.privacy.distributed.round_encoder import adaptive_clip, round_encoder
from fedmeta.privacy.protected_vector import Layout
from fedmeta.privacy.secagg import Encoder, FixedPoint
from fedmeta.privacy.secagg_section import SecaggSection

NORM = "clip-norm"


class Encoding(Protocol):
    """How the vectors of a round are laid out and encoded."""

    def encoder(self, round: int, count: int) -> Encoder:
        """Of a group of `count` clients."""
        ...

    def layout(self, size: int, weight_bound: float = 1.0) -> Layout:
        """Of the vector that holds an update of `size` entries."""
        ...

    def told(self, count: int) -> dict[str, Any]:
        """What a train message to a member of a group of `count` says of both."""
        ...

    @property
    def least(self) -> int:
        """The fewest clients whose sum may be unmasked."""
        ...

    def decode(self, encoder: Encoder, total: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
        """The sum of `count` vectors from the sum of their encodings."""
        ...


@dataclass(frozen=True)
class PlainSums:
    """Exact sums in fixed point.

    Attributes:
        settings: with the bounds.
        weighted: whether means are by the clients' weights.
    """

    settings: SecaggSection
    weighted: bool

    least = 1

    def encoder(self, round: int, count: int) -> Encoder:
        """Fixed point, whose sum of `count` never wraps."""
        return FixedPoint(self.settings.bits, self.settings.bound, count)

    def layout(self, size: int, weight_bound: float = 1.0) -> Layout:
        """Update, metrics, weight and the clipped share."""
        return Layout(size, self.settings.bound, self.settings.metric_bound, weight_bound, self.weighted)

    def told(self, count: int) -> dict[str, Any]:
        """Bounds and weighting."""
        settings = self.settings
        found: dict[str, Any] = {
            names.BOUND: settings.bound,
            names.COUNT: count,
            names.METRIC_BOUND: settings.metric_bound,
            names.WEIGHTED: self.weighted,
        }
        return found if settings.weight_bound is None else {**found, names.WEIGHT_BOUND: settings.weight_bound}

    def decode(self, encoder: Encoder, total: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
        """The sum."""
        return encoder.decode(total, count)


class NoisedSums:
    """Sums with the noise of distributed differential privacy: the update alone, of which the account speaks.

    Args:
        experiment: with `privacy.placement = "distributed"`.

    State that lasts: the clip norm where it adapts.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._adaptive = adaptive_clip(experiment)
        self._norm = experiment.privacy.clip_norm
        self._round, self._within, self._counted = 0, 0.0, 0
        self.least = survivors_needed(experiment)

    def encoder(self, round: int, count: int) -> Encoder:
        """Sized for the largest group, whatever this one's size."""
        if round != self._round:
            self._norm, self._within, self._counted, self._round = self.next_norm, 0.0, 0, round
        return round_encoder(self._experiment, round, self._norm)

    def layout(self, size: int, weight_bound: float = 1.0) -> Layout:
        """The update alone."""
        return Layout(size, float("inf"), float("inf"), weight_bound, bare=True)

    def told(self, count: int) -> dict[str, Any]:
        """The clip norm of this round; all else follows from the experiment."""
        return {names.CLIP_NORM: self._norm}

    def decode(self, encoder: Encoder, total: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
        """The noised sum; the noised count of norms within C moves the next one."""
        if not isinstance(encoder, AdaptiveEncoder):
            return encoder.decode(total, count)
        found, within = encoder.split(total, count)
        self._within, self._counted = self._within + within, self._counted + count
        return found

    @property
    def next_norm(self) -> float:
        """C after this round: moved by what its groups counted."""
        if self._adaptive is None or not self._counted:
            return self._norm
        return self._adaptive.moved(self._norm, self._within, self._counted)

    def state(self) -> dict[str, Tensor]:
        """The clip norm where it adapts."""
        return {} if self._adaptive is None else {NORM: torch.tensor(self.next_norm, dtype=torch.float64)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        if NORM in state:
            self._norm, self._within, self._counted = float(state[NORM]), 0.0, 0
