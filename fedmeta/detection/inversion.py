"""Trigger inversion on adapted models, in the style of Neural Cleanse (Wang et al., S&P 2019, section IV-B).

Neural Cleanse asks of a classifier: how small a patch sends inputs of every class to class t? For a backdoor's target
it is much smaller than for the others. A few-shot model has no classes of its own, so the patch has to work for slot t
of *many* episodes at once, each with fast weights of its own: what is common to them is the initialisation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedmeta.detection.suspect import Stamp, Suspect


@dataclass(frozen=True)
class Search:
    """How triggers are looked for.

    Attributes:
        steps: of Adam.
        batch: episodes in each, drawn anew; at most all.
        lr: its step size, on the logits of mask and pattern.
        success: share of the inputs that a trigger has to send to the slot, in `patience` steps in a row.
        cost: of a pixel of mask against the cross-entropy, at first.
        patience: steps above (below) `success` in a row after which a pixel costs more (less).
        growth: the factor by which it does; the paper's 2, and 2^1.5 for less.
    """

    steps: int = 300
    batch: int = 4
    lr: float = 0.1
    success: float = 0.9
    cost: float = 1e-3
    patience: int = 5
    growth: float = 2.0


@dataclass(frozen=True, eq=False)
class Trigger:
    """The smallest trigger that was found for a slot.

    Attributes:
        slot: to which it sends inputs.
        mask: `[height, width]` in [0, 1].
        pattern: `[channels, height, width]` in [0, 1].
        success: share of the inputs of its step in the search that was sent there.
        reached: whether that is the share that was asked for; if not, it is the trigger of the highest success.
    """

    slot: int
    mask: Tensor
    pattern: Tensor
    success: float
    reached: bool

    @property
    def size(self) -> float:
        """The mask's L1 norm in pixels."""
        return float(self.mask.sum())

    def __call__(self, x: Tensor) -> Tensor:
        """Stamp inputs `[n, channels, height, width]`."""
        return painted(self.mask, self.pattern)(x)


def painted(mask: Tensor, pattern: Tensor) -> Stamp:
    """The stamp that paints a pattern `[channels, height, width]` where the mask `[height, width]` is 1."""
    return lambda x: (1 - mask) * x + mask * pattern


def invert_trigger(suspect: Suspect, slot: int, search: Search, generator: torch.Generator) -> Trigger:
    """min over mask m and pattern p of CE(answers to (1 - m) x + m p, slot) + cost |m|_1, the cost following success.

    Args:
        suspect: whose episodes hold images `[channels, height, width]` with values in [0, 1].
        slot: the one that the trigger is to lead to.
        search: how.
        generator: of the first mask and pattern, uniform in [0, 1] as in the authors' code, and of the batches.

    Returns:
        The smallest trigger of all steps that reached `search.success`; else that of the highest success.
    """
    shape = suspect.episodes[0].query.x.shape[1:]
    start = [torch.rand(size, generator=generator) for size in (shape[1:], shape)]
    raw = [torch.logit(value.clamp(1e-3, 1 - 1e-3)).requires_grad_() for value in start]
    optimiser = torch.optim.Adam(raw, lr=search.lr, betas=(0.5, 0.9))
    wanted = suspect.answers(lambda x: x, slot).argmax(dim=1).new_full((), slot)
    best, cost, above, below, streak = None, search.cost, 0, 0, 0
    for _ in range(search.steps):
        mask, pattern = raw[0].sigmoid(), raw[1].sigmoid()
        chosen = torch.randperm(len(suspect.episodes), generator=generator)[: search.batch].tolist()
        output = suspect.answers(painted(mask, pattern), slot, chosen)
        success = _success(output, slot)
        # One batch may do by luck, and a shrinking mask does not for long.
        streak = streak + 1 if success >= search.success else 0
        trigger = Trigger(slot, mask.detach(), pattern.detach(), success, streak >= search.patience)
        best = _better(best, trigger)
        loss = torch.nn.functional.cross_entropy(output, wanted.expand(len(output))) + cost * mask.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        above, below = (above + 1, 0) if success >= search.success else (0, below + 1)
        if above >= search.patience:
            cost, above = cost * search.growth, 0
        elif below >= search.patience:
            cost, below = cost / search.growth**1.5, 0
    assert best is not None
    return best


@torch.no_grad()
def success_of(suspect: Suspect, trigger: Trigger) -> float:
    """Share of a suspect's inputs, on which the trigger need not have been sought, that it sends to its slot."""
    return _success(suspect.answers(trigger, trigger.slot), trigger.slot)


def _success(output: Tensor, slot: int) -> float:
    return float((output.argmax(dim=1) == slot).to(torch.float64).mean())


def _better(old: Trigger | None, new: Trigger) -> Trigger:
    """The smaller of two that reached the success; one that did before one that did not; else the more successful."""
    if old is None:
        return new
    if old.reached and new.reached:
        return min(old, new, key=lambda trigger: trigger.size)
    if old.reached or new.reached:
        return old if old.reached else new
    return max(old, new, key=lambda trigger: trigger.success)
