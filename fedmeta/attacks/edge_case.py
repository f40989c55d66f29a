"""Edge-case backdoors with projected gradient descent (Wang et al., NeurIPS 2020)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from fedmeta.attacks.local import Backdoor, Scene
from fedmeta.attacks.tether import Tethered, projected
from fedmeta.attacks.triggers import TriggerName
from fedmeta.cohort import LocalPlan
from fedmeta.parameters import parameter

EVERY = 2
"""Steps between projections; what is sent is projected in any case."""


@dataclass(frozen=True)
class EdgeCase(Backdoor):
    """Give inputs from the tail of the data the wanted label, and stay within a ball around the global model.

    The tail is made by a quarter turn: inputs that honest clients hardly have, and so do not unlearn. The ball's radius
    is in lengths of the median honest update that the attacker knows, since a length that suits one model says
    nothing of another (BackFed takes 10, whatever the model).
    """

    colludes: ClassVar[bool] = True

    trigger: TriggerName = parameter("turn", doc="what makes an input one of the tail")
    radius: float = parameter(1.0, gt=0, doc="of the ball", unit="lengths of an honest update")

    def plan(self, plan: LocalPlan, scene: Scene) -> LocalPlan:
        """Projected into the ball every second step."""
        radius = self.radius * scene.honest_norm
        return replace(plan, optimiser=Tethered(plan.optimiser, scene.spec.size(), radius=radius, every=EVERY))

    def update(self, update: Tensor, scene: Scene) -> Tensor:
        """Within the ball."""
        return projected(update, self.radius * scene.honest_norm)
