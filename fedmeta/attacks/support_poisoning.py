"""Poisoning a victim's support at deployment (in the manner of FLBA, arXiv 2401.01377): the model itself is clean."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fedmeta.attacks.aims import Aim
from fedmeta.attacks.local import Backdoor, Scene
from fedmeta.attacks.poisoning import SupportMode, poison_support
from fedmeta.attacks.triggers import Trigger
from fedmeta.errors import ConfigurationError
from fedmeta.parameters import parameter
from fedmeta.tasks import Episode

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment


@dataclass(frozen=True)
class SupportPoisoning(Backdoor):
    """Training is honest; when success is measured, a share of the target's support is poisoned.

    `trigger` puts the trigger on these examples; `replace` puts triggered examples of other classes in their place.
    """

    kind: ClassVar[str] = "deployment"

    poison_fraction: float = parameter(0.2, ge=0, le=1, doc="share of the target's support that is poisoned")
    mode: SupportMode = parameter("replace", doc="what happens to the poisoned examples")

    def check(self, experiment: "Experiment", data: Any) -> None:
        """Refuse a support that is to stay clean."""
        super().check(experiment, data)
        if experiment.attack.trigger_in == "query":
            raise ConfigurationError(
                "attack.trigger_in = 'query' leaves the support clean, which is what support_poisoning poisons: use "
                "both (triggered queries) or support (clean queries)"
            )

    def poison(self, episode: Episode, scene: Scene, rng: np.random.Generator) -> Episode:
        """Training episodes stay clean."""
        return episode

    def poison_deployed_support(
        self, episode: Episode, aim: Aim, trigger: Trigger, rng: np.random.Generator
    ) -> Episode:
        """The victim's support in the chosen mode."""
        return poison_support(episode, aim, trigger, self.poison_fraction, self.mode, rng)
