"""The contract of evasion attacks, and how points are compared."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.evasion.ball import Ball
from fedmeta.evasion.losses import cross_entropy

Logits = Callable[[Tensor], Tensor]
"""An adapted model, or all that a support makes of one, as a function of the inputs that the attacker moves.

On queries: `[n, *shape]` to `[n, ways]`, with labels `[n]`. On a support: `[u, examples, *shape]`, u sets of examples,
to `[u, outputs, ways]`, the answers to the queries that each leads to, with labels `[u, outputs]`. Attacks treat both
alike: one *unit* is one entry of the first axis, and inputs have as many leading axes as labels.
"""


@dataclass(frozen=True)
class Evasion(ABC):
    """An attack: a pure function, without data-dependent control flow, so that it runs in a loop and under `vmap`.

    Gradients are taken by `fedmeta.gradients.value_and_grad`, draws come from a seed tensor
    (`fedmeta.learners.draws`): under `fedmeta.execution.over_tasks` the same attack runs episode by episode or batched.

    Attributes:
        black_box: it asks for outputs only, so that it works where gradients do not.
    """

    black_box: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, logits_of: Logits, x: Tensor, y: Tensor, ball: Ball, seed: Tensor) -> Tensor:
        """Inputs like `x` that the model gets wrong where it can be made to.

        Args:
            logits_of: the model under attack.
            x: clean inputs within the ball's range; never changed.
            y: true labels, int64.
            ball: how far inputs may move; its `lead` is the number of axes of `y`.
            seed: int64 `[]`, of the attack's draws.

        Returns:
            Shaped as x, within the ball around it, detached. `x` itself is one of the points that are compared: an
            attacker may leave an input alone.
        """

    @property
    def least_ways(self) -> int:
        """Classes that it needs; by default two, since with one there is no error."""
        return 2

    def check(self, shape: tuple[int, ...], ball: Ball) -> None:  # noqa: B027  (most refuse nothing)
        """Refuse inputs of a shape, or a ball, that the attack is not made for, before anything is computed.

        Raises:
            ConfigurationError: names the shape or the norm, and other attacks.
        """


def wrong(logits: Tensor, y: Tensor) -> Tensor:
    """Share of each unit's outputs that are not their label: `[u, ..., ways]` and `[u, ...]` to `[u]` in [0, 1]."""
    return per_unit((logits.argmax(dim=-1) != y).to(logits.dtype))


def per_unit(values: Tensor) -> Tensor:
    """Means over all axes but the first: `[u, ...]` to `[u]`."""
    return values.flatten(1).mean(dim=1) if values.dim() > 1 else values


def worst_of(logits_of: Logits, y: Tensor, points: Iterable[Tensor]) -> Tensor:
    """Of several points each unit's worst for the model: most wrong answers, then the highest cross-entropy.

    Args:
        logits_of: the model.
        y: true labels.
        points: at least one; all shaped alike. The first stays where another is no worse.
    """
    found: Tensor | None = None
    with torch.no_grad():
        for point in points:
            logits = logits_of(point)
            errors, loss = wrong(logits, y), per_unit(cross_entropy(logits, y))
            if found is None:
                found, most, highest = point, errors, loss
                continue
            worse = (errors > most) | ((errors == most) & (loss > highest))
            found = torch.where(along(worse, point), point, found)
            most, highest = torch.where(worse, errors, most), torch.where(worse, loss, highest)
    if found is None:
        raise ValueError("there is no point to choose from")
    return found.detach()


def along(units: Tensor, x: Tensor) -> Tensor:
    """Values `[u]` of units, shaped to meet inputs `[u, ...]`."""
    return units.reshape(-1, *[1] * (x.dim() - 1))
