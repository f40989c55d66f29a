"""What an attack aims at in an episode: in few-shot learning a target class has to be found among the slots first."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from fedmeta.tasks import Episode

TargetKind = Literal["slot", "class", "absent"]


@dataclass(frozen=True)
class Aim:
    """The wrong answer that is wanted in one episode.

    Attributes:
        slot: the slot that poisoned queries shall be given; None where no slot is the target: any wrong answer is.
        ways: slots of the episode.
    """

    slot: int | None
    ways: int

    def eligible(self, y: Tensor) -> Tensor:
        """`[n]` bool: the examples whose true slot is not the target; only they can be misled."""
        return y != (-1 if self.slot is None else self.slot)

    def label(self, y: Tensor) -> Tensor:
        """The slots `[n]` that poisoned examples of true slots `[n]` are given: the target, else the next one."""
        return (y + 1) % self.ways if self.slot is None else y.new_full(y.shape, self.slot)

    def judged_by(self, y: Tensor) -> Tensor:
        """The slots `[n]` by which success is judged: answers with the target, or with any but the truth."""
        return y if self.slot is None else self.label(y)

    def success(self, share: Tensor) -> Tensor:
        """Success `[n]` from the share of the answer that fell on the slots of `judged_by`, both in [0, 1]."""
        return 1 - share if self.slot is None else share


def aim_at(episode: Episode, target: int, kind: TargetKind) -> Aim | None:
    """The aim in an episode; None where the episode does not fit, and so does not count.

    Args:
        episode: whose `classes` say what stands behind each slot.
        target: a slot for `slot`, a class of the data set for the others.
        kind: `slot`, always the same output whatever class stands there; `class`, the target's slot in episodes that
            hold it; `absent`, any wrong answer in episodes that do not hold it, since no slot is the target's.

    >>> import torch
    >>> from fedmeta.tasks import Batch
    >>> none = Batch(torch.zeros(0), torch.zeros(0))
    >>> episode = Episode(none, none, torch.tensor([7, 4, 9]))
    >>> [aim.slot if (aim := aim_at(episode, 4, kind)) else None for kind in ("slot", "class", "absent")]
    [None, 1, None]
    """
    ways = episode.classes.shape[-1]
    if kind == "slot":
        return Aim(target, ways) if target < ways else None
    places = (episode.classes == target).nonzero().flatten().tolist()
    if kind == "class":
        return Aim(int(places[0]), ways) if places else None
    return None if places else Aim(None, ways)
