"""Class data that lie on the device that trains: they go there once, and episodes are gathered where they lie."""

from dataclasses import dataclass

import numpy as np
import torch

from fedmeta.data.base import EpisodeShape
from fedmeta.data.episodes import ClassSource, as_inputs
from fedmeta.tasks import Batch, Episode


@dataclass(frozen=True)
class ResidentSource:
    """The episodes of a `ClassSource`, the same to the bit, on another device than the CPU.

    Only row numbers and class ids go there with each episode.

    Attributes:
        source: what draws.
        stored: its examples as `as_stored` has them, on the device.
    """

    source: ClassSource
    stored: torch.Tensor

    def sample(self, shape: EpisodeShape, rng: np.random.Generator) -> Episode:
        """As `ClassSource.sample`.

        Raises:
            DataError: the client cannot give such an episode.
        """
        rows, classes = self.source.draw(shape, rng)
        device = self.stored.device
        slots = torch.arange(shape.ways, device=device)
        inputs = as_inputs(self.stored[torch.from_numpy(rows.reshape(-1)).to(device, non_blocking=True)])
        cut = shape.shots * shape.ways
        return Episode(
            Batch(inputs[:cut], slots.repeat(shape.shots)),
            Batch(inputs[cut:], slots.repeat(shape.queries)),
            torch.from_numpy(classes).to(device, non_blocking=True),
        )
