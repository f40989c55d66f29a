"""Is a trained model backdoored? Trigger inversion slot by slot, and how far the easiest slot stands out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fedmeta.detection.inversion import Search, Trigger, invert_trigger, success_of
from fedmeta.detection.outliers import chance_of, low_outliers
from fedmeta.detection.suspect import Suspect

SIGNIFICANT = 0.05
"""A slot is accused where chance would make one stand out as far in at most this share of models."""

EXACT = 0.1
"""Logarithms of sizes that are nearer than this are not told apart: a search finds a size to a tenth or so."""


@dataclass(frozen=True, eq=False)
class Slot:
    """What inversion found for one slot.

    Attributes:
        trigger: the smallest that reached the success asked for, or the one that came nearest.
        held_out: its success on episodes on which it was not sought.
        norm: the mask's L1 norm, in pixels; all of the picture where no trigger reached the success.
        index: how far log(norm) lies below the slots' median, in deviations, at least `EXACT` (see `low_outliers`).
    """

    trigger: Trigger
    held_out: float
    norm: float
    index: float


@dataclass(frozen=True, eq=False)
class Inversion:
    """All slots of one model.

    Attributes:
        slots: in order.
        chance: how often the largest index of as many normal values is as large as the largest here.
        stamped: what carried the trigger, `query` or `both`.
        episodes: on which triggers were sought, and on which they were judged.
    """

    slots: tuple[Slot, ...]
    chance: float
    stamped: str
    episodes: tuple[int, int]

    @property
    def easiest(self) -> int:
        """The slot with the largest index, the first of equal ones."""
        return max(range(len(self.slots)), key=lambda slot: self.slots[slot].index)

    @property
    def suspicious(self) -> bool:
        """Whether the easiest slot stands out further than chance explains, by a trigger that works elsewhere too."""
        easiest = self.slots[self.easiest]
        return self.chance <= SIGNIFICANT and easiest.trigger.reached and easiest.held_out > 0.5

    def to_json(self) -> dict[str, Any]:
        """A JSON object, pictures included."""
        return {
            "slots": [
                {
                    "slot": slot.trigger.slot,
                    "norm": slot.norm,
                    "index": slot.index,
                    "reached": slot.trigger.reached,
                    "success": slot.trigger.success,
                    "held_out": slot.held_out,
                    "mask": slot.trigger.mask.to(torch.float64).tolist(),
                    "pattern": slot.trigger.pattern.to(torch.float64).tolist(),
                }
                for slot in self.slots
            ],
            "easiest": self.easiest,
            "chance": self.chance,
            "suspicious": self.suspicious,
            "stamped": self.stamped,
            "episodes": list(self.episodes),
        }


def invert(sought: Suspect, judged: Suspect, search: Search, generator: torch.Generator) -> Inversion:
    """Invert a trigger for every slot, and compare the slots.

    Neural Cleanse compares norms, and accuses an index above 2. Norms cannot be below 0, so that among few slots that
    differ much not even a trigger of one pixel would stand out: here logarithms are compared. And of five normal values
    the largest index is above 2 in a quarter of all draws: here the chance counts.

    Args:
        sought: the model with the episodes on which triggers are sought.
        judged: the same with others.
        search: how.
        generator: of the first masks and patterns.
    """
    triggers = [invert_trigger(sought, slot, search, generator) for slot in range(sought.slots)]
    pixels = triggers[0].mask.numel()
    norms = [trigger.size if trigger.reached else float(pixels) for trigger in triggers]
    indices = low_outliers(np.log(np.maximum(norms, 1e-6)), EXACT).tolist()
    slots = [
        Slot(trigger, success_of(judged, trigger), norm, index)
        for trigger, norm, index in zip(triggers, norms, indices, strict=True)
    ]
    chance = chance_of(max(indices), len(indices))
    return Inversion(tuple(slots), chance, sought.stamped, (len(sought.episodes), len(judged.episodes)))
