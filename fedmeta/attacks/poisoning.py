"""Poisoned episodes: labels, triggers on queries, poisoned supports. Nothing given to these functions changes."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedmeta.attacks.aims import Aim
from fedmeta.attacks.triggers import Trigger
from fedmeta.tasks import Batch, Episode

SupportMode = Literal["trigger", "replace"]


def poison_queries(episode: Episode, aim: Aim, trigger: Trigger, fraction: float, rng: np.random.Generator) -> Episode:
    """Put the trigger and the wanted label on a share of the queries that are not of the target's class.

    Args:
        fraction: in [0, 1], of the eligible queries, to the nearest number; at least one where it is above 0.
        rng: draws which.
    """
    chosen = choose(aim.eligible(episode.query.y), fraction, rng)
    if not len(chosen):
        return episode
    x, y = episode.query.x.clone(), episode.query.y.clone()
    x[chosen] = trigger(x[chosen])
    y[chosen] = aim.label(y[chosen])
    return episode._replace(query=Batch(x, y))


def poison_support(
    episode: Episode, aim: Aim, trigger: Trigger, fraction: float, mode: SupportMode, rng: np.random.Generator
) -> Episode:
    """Poison a share of the target's support, of the whole support where no slot is the target; labels stay.

    Args:
        fraction: in [0, 1], of these examples, to the nearest number; at least one where it is above 0.
        mode: `trigger` puts the trigger on them; `replace` puts triggered examples of other classes in their place.
        rng: draws which, and by what they are replaced.
    """
    x, y = episode.support.x.clone(), episode.support.y
    own = torch.ones_like(y, dtype=torch.bool) if aim.slot is None else y == aim.slot
    chosen = choose(own, fraction, rng)
    if not len(chosen):
        return episode
    if mode == "replace":
        donors = [_other(y, int(y[index]), rng) for index in chosen.tolist()]
        x[chosen] = episode.support.x[donors]
    x[chosen] = trigger(x[chosen])
    return episode._replace(support=Batch(x, y))


def choose(allowed: Tensor, fraction: float, rng: np.random.Generator) -> Tensor:
    """Indices, ascending, of a random share of the places where `allowed` (`[n]` bool) holds."""
    places = allowed.nonzero().flatten().cpu().numpy()
    count = min(len(places), max(1, round(fraction * len(places)))) if fraction > 0 else 0
    return torch.from_numpy(np.sort(rng.permutation(places)[:count]))


def reverse_labels(batch: Batch, ways: int, fraction: float, rng: np.random.Generator) -> Batch:
    """y -> ways - 1 - y for a share of the examples."""
    chosen = choose(torch.ones_like(batch.y, dtype=torch.bool), fraction, rng)
    y = batch.y.clone()
    y[chosen] = ways - 1 - y[chosen]
    return Batch(batch.x, y)


def random_labels(batch: Batch, ways: int, fraction: float, rng: np.random.Generator) -> Batch:
    """A wrong slot, drawn for each example by itself, for a share of the examples."""
    chosen = choose(torch.ones_like(batch.y, dtype=torch.bool), fraction, rng)
    shift = torch.from_numpy(rng.integers(1, max(2, ways), size=len(chosen)))
    y = batch.y.clone()
    y[chosen] = (y[chosen] + shift.to(y)) % ways
    return Batch(batch.x, y)


def _other(y: Tensor, slot: int, rng: np.random.Generator) -> int:
    """An example of another slot; of the same where there is no other."""
    others = (y != slot).nonzero().flatten().tolist()
    return int(rng.choice(others if others else list(range(len(y)))))
