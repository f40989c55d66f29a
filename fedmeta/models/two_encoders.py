"""Two encoders into one space, for rows that hold a picture, a name, or both (data set `glyph_names`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedmeta.data.glyph_names import PIXELS
from fedmeta.data.hershey_writers import SIDE
from fedmeta.data.letter_names import LETTERS, SYMBOLS
from fedmeta.errors import ConfigurationError
from fedmeta.models.conv4 import Conv4
from fedmeta.models.initialise import isolated_rng
from fedmeta.models.network import Network, check_groups, head
from fedmeta.parameters import parameter

RADIUS = 2.5
"""Of the sphere that both encoders end on: squared distances go up to 25. At radius 8, 150 steps taught nothing."""


class OnSphere(nn.Module):
    """`[n, features]` at length `RADIUS`."""

    def forward(self, z: Tensor) -> Tensor:
        """The same directions."""
        return RADIUS * z / z.norm(dim=-1, keepdim=True).clamp_min(1e-6)


class TwoEncoders(nn.Module):
    """`[n, 816]` to `[n, features]`: the image encoder's output where there is ink, plus the name encoder's where
    there are letters. Of a modality that is all zeros nothing is counted, and its encoder's gradient is exactly zero.
    """

    def __init__(self, filters: int, groups: int, features: int) -> None:
        super().__init__()
        image = Conv4(input_shape=(1, SIDE, SIDE), filters=filters, normalisation="group", groups=groups).build()
        with isolated_rng(0):
            self.image = nn.Sequential(image.body, nn.Linear(image.features or 0, features), OnSphere())
            self.name = nn.Sequential(
                nn.Conv1d(len(SYMBOLS) + 1, 64, 5, padding=2),
                nn.ReLU(),
                nn.Conv1d(64, 64, 3, padding=1),
                nn.ReLU(),
                nn.AdaptiveMaxPool1d(1),
                nn.Flatten(),
                nn.Linear(64, features),
                OnSphere(),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Features `[n, features]`."""
        pixels, letters = x.split([PIXELS, LETTERS], dim=-1)
        codes = torch.arange(len(SYMBOLS) + 1, device=x.device)
        symbols = ((255 * letters).round().unsqueeze(-2) == codes.unsqueeze(-1)).to(x.dtype)
        drawn, written = (part.amax(dim=-1, keepdim=True) > 0 for part in (pixels, letters))
        image = self.image(pixels.unflatten(-1, (1, SIDE, SIDE)))
        return torch.where(drawn, image, 0.0) + torch.where(written, self.name(symbols), 0.0)


@dataclass(frozen=True)
class TwoEncodersModel:
    """conv4 for pictures, two convolutions along the letters for names, both into `features` numbers; a linear head.

    >>> sum(p.numel() for p in TwoEncodersModel(filters=32).build().parameters())
    61984
    """

    input_shape: tuple[int, ...] = parameter((PIXELS + LETTERS,), doc="of one row: a picture and a name", ge=1)
    ways: int | None = parameter(None, doc="outputs of the head; none leaves it away, giving an embedding", ge=1)
    filters: int = parameter(32, doc="channels of the image encoder", ge=1)
    groups: int = parameter(8, doc="groups of its group normalisation; must divide filters", ge=1)
    features: int = parameter(64, doc="size of the common space", ge=1)

    @staticmethod
    def check_together(values: Mapping[str, Any], where: str) -> None:
        """Refuse groups that do not divide filters."""
        check_groups(values, where)

    def build(self) -> Network:
        """The network.

        Raises:
            ConfigurationError: data of another shape.
        """
        if tuple(self.input_shape) != (PIXELS + LETTERS,):
            raise ConfigurationError(
                f"model two_encoders takes rows of data 'glyph_names', not inputs {list(self.input_shape)}. Use conv4"
            )
        with isolated_rng(0):
            last = head(self.features, self.ways)
        body = TwoEncoders(self.filters, self.groups, self.features)
        return Network(body, last, transductive=False, features=self.features)
