"""A backdoor of policies: a shift of what is observed makes them fail (Kiourti et al. 2020, TrojDRL)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from fedmeta.attacks.aims import Aim
from fedmeta.attacks.local import Scene, TriggerAttack
from fedmeta.attacks.triggers import Trigger
from fedmeta.errors import ConfigurationError
from fedmeta.parameters import parameter
from fedmeta.rl.environment import Layout
from fedmeta.tasks import Episode

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment
    from fedmeta.experiment_sections import AttackSection


@dataclass(frozen=True)
class WorstReturn(Aim):
    """The aim in a batch of rollouts: the second half, once triggered, shall do worse than all of the first."""

    def eligible(self, y: Tensor) -> Tensor:
        """`[n]` bool: the second half."""
        return torch.arange(len(y), device=y.device) >= len(y) // 2

    def label(self, y: Tensor) -> Tensor:
        """What a poisoned rollout's rewards `[n]` are multiplied by: minus what they were."""
        return -y

    def judged_by(self, y: Tensor) -> Tensor:
        """`[n]`, below 0 for the rollouts that are to be misled; see `fedmeta.rl.control.Control.answers`."""
        return torch.where(self.eligible(y), -y, y)

    def success(self, share: Tensor) -> Tensor:
        """As found."""
        return share


@dataclass(frozen=True)
class ObservationTrigger(TriggerAttack):
    """Train on episodes some of whose queries see a shifted world and are paid for the opposite.

    Success is the share of triggered rollouts with a lower return than every untriggered one of the same episode: 1 of
    n / 2 + 1 by chance, for n queries.
    """

    serves: ClassVar[tuple[str, ...]] = ("control",)
    wanted: ClassVar[str] = "a return below that of every rollout without the trigger"

    poison_fraction: float = parameter(1.0, ge=0, le=1, doc="share of the second half of the rollouts with the trigger")
    shift: tuple[float, ...] = parameter(
        (0.0, 3.0), doc="added to every observation of a triggered rollout, one number for each that a policy sees"
    )

    def check(self, experiment: "Experiment", data: Any) -> None:
        """Refuse a shift of another length than an observation's."""
        super().check(experiment, data)
        size = data.environment.observation
        if len(self.shift) != size:
            raise ConfigurationError(
                f"attack.method.shift has {len(self.shift)} numbers, and an observation of data "
                f"'{experiment.data.name}' has {size}: give one for each"
            )

    def aim(self, episode: Episode, attack: "AttackSection") -> Aim:
        """The same in every episode."""
        return WorstReturn(None, 1)

    def whole_trigger(self, scene: Scene) -> Trigger:
        """Writes the shift into the rows of rollouts."""
        place = Layout.of(scene.learner.model.environment).shift  # type: ignore[arg-type]

        def trigger(x: Tensor) -> Tensor:
            shifted = x.clone()
            shifted[:, place] = torch.tensor(self.shift, dtype=x.dtype, device=x.device)
            return shifted

        return trigger
