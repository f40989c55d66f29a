"""Class data that lie on the device that trains: they go there once, and episodes are gathered where they lie."""

from dataclasses import dataclass

import numpy as np
import torch

from fedmeta.data.base import EpisodeShape, TaskSource
from fedmeta.data.episodes import ClassSource, as_inputs, as_stored
from fedmeta.memory import available_bytes
from fedmeta.tasks import Batch, Episode

SHARE = 0.25
"""Of a GPU's free memory, what training data may take for good."""


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


def on_device(source: TaskSource, device: torch.device, resident: dict[int, torch.Tensor]) -> TaskSource:
    """A client's episodes where it trains: those of class data on a GPU of which the data fill little.

    Args:
        source: of the client.
        device: that it trains on.
        resident: examples on the device by the identity of their array, which must live as long; is added to.
    """
    if device.type == "cpu" or not isinstance(source, ClassSource):
        return source
    key = id(source.examples)
    if key not in resident and source.examples.nbytes <= available_bytes(device, SHARE):
        resident[key] = as_stored(source.examples).to(device)
    return ResidentSource(source, resident[key]) if key in resident else source
