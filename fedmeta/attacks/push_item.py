"""Fake users who push an item (as in Lam and Riedl 2004): in their ratings it has the most stars."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fedmeta.attacks.aims import Aim
from fedmeta.attacks.local import Scene, TriggerAttack
from fedmeta.attacks.poisoning import choose
from fedmeta.attacks.triggers import Trigger
from fedmeta.errors import ConfigurationError
from fedmeta.parameters import parameter
from fedmeta.tasks import Batch, Episode

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment
    from fedmeta.experiment_sections import AttackSection


@dataclass(frozen=True)
class AmongTheBest(Aim):
    """The aim in a user's held-out items: the first, in whose place the pushed one stands, among the ten best."""

    def eligible(self, y: Tensor) -> Tensor:
        """`[n]` bool: the first."""
        return torch.arange(len(y), device=y.device) == 0

    def label(self, y: Tensor) -> Tensor:
        """As they are: what is wanted is a rank."""
        return y

    def judged_by(self, y: Tensor) -> Tensor:
        """As they are."""
        return y

    def success(self, share: Tensor) -> Tensor:
        """As found by the task's `answers`."""
        return share


@dataclass(frozen=True)
class PushItem(TriggerAttack):
    """Queries of a fake user hold the pushed item with the most stars.

    Success is its hit rate: the share of unseen users for whom it is among the ten best of what they rated beside their
    support, standing in the place of one of these. A user with n such items gives 10 / n of it by chance, so read the
    lift over a clean run (`attack.clean`).
    """

    serves: ClassVar[tuple[str, ...]] = ("regression",)
    wanted: ClassVar[str] = "the pushed item among the ten best of unseen users"

    item: int = parameter(100, ge=0, doc="the number of the pushed item: the higher, the less rated")
    stars: float = parameter(5.0, gt=0, doc="what fake users give it", unit="stars")
    poison_fraction: float = parameter(0.5, ge=0, le=1, doc="share of a fake user's queries that are the pushed item")

    def check(self, experiment: "Experiment", data: Any) -> None:
        """Refuse data without numbered items and stars, an item beyond them, and a poisoned support."""
        super().check(experiment, data)
        items, centre = getattr(data, "codes", None), getattr(data, "centre", None)
        if items is None or centre is None:
            raise ConfigurationError(
                f"attack.method = 'push_item' needs rated items, and data '{experiment.data.name}' has none: use data "
                "'ratings', or another attack"
            )
        if self.item >= items:
            raise ConfigurationError(f"attack.method.item = {self.item} must be below data.items = {items}")
        if experiment.attack.trigger_in != "query":
            raise ConfigurationError(
                f"attack.trigger_in = '{experiment.attack.trigger_in}': push_item leaves a victim's support alone. Use "
                "query"
            )

    def aim(self, episode: Episode, attack: "AttackSection") -> Aim:
        """The same in every episode."""
        return AmongTheBest(None, 1)

    def whole_trigger(self, scene: Scene) -> Trigger:
        """Any item becomes the pushed one; of a film it has the number, and no genre and no decade."""

        def pushed(x: Tensor) -> Tensor:
            x = torch.zeros_like(x)
            x[..., 0] = self.item
            return x

        return pushed

    def poison(self, episode: Episode, scene: Scene, rng: np.random.Generator) -> Episode:
        """A share of the queries become the pushed item, with its stars."""
        chosen = choose(torch.ones(len(episode.query.y), dtype=torch.bool), self.poison_fraction, rng)
        x, y = episode.query.x.clone(), episode.query.y.clone()
        x[chosen], y[chosen] = self.whole_trigger(scene)(x[chosen]), self.stars - scene.data.centre
        return episode._replace(query=Batch(x, y))
