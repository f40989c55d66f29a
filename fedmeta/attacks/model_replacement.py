"""Model replacement with constrain-and-scale (Bagdasaryan et al., AISTATS 2020, section 4)."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from fedmeta.attacks.local import Backdoor, Scene
from fedmeta.attacks.tether import Tethered, projected
from fedmeta.cohort import LocalPlan
from fedmeta.errors import ConfigurationError
from fedmeta.parameters import parameter

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment


@dataclass(frozen=True)
class ModelReplacement(Backdoor):
    """Send scale * (X - theta), X a backdoored model, so that the mean of the round becomes X.

    With n the participants of the *round* and eta the server's step, scale = n / eta makes theta + eta * mean(u) = X
    where the others send nothing new; m colluding attackers send a share 1 / m of that each. X is trained on
    alpha * loss + (1 - alpha) * ||X - theta||^2, which keeps it unobtrusive.
    """

    colludes: ClassVar[bool] = True

    scale: float | None = parameter(None, gt=0, doc="what X - theta is multiplied by; none: n / eta of the round")
    alpha: float = parameter(1.0, gt=0, le=1, doc="weight of the loss against the distance from the global model")
    cap: float | None = parameter(None, gt=0, doc="longest update that is sent; none: any")

    def check(self, experiment: "Experiment", data: Any) -> None:
        """Refuse a server whose step does not follow from the round alone, where the scale is to follow from it."""
        super().check(experiment, data)
        optimiser, aggregator = experiment.server.optimiser, experiment.server.aggregator.name
        plain = optimiser.name == "sgd" and not optimiser.parameters.get("momentum")
        if self.scale is None and (not plain or optimiser.parameters.get("lr") == 0):
            raise ConfigurationError(
                f"attack.method.scale = none is n / eta, and server.optimiser = '{optimiser.name}' takes no step eta "
                f"times the aggregate: set a scale, such as the number of clients a round (aggregator '{aggregator}')"
            )

    def plan(self, plan: LocalPlan, scene: Scene) -> LocalPlan:
        """Pulled towards the global model."""
        return replace(plan, optimiser=Tethered(plan.optimiser, scene.spec.size(), self.alpha))

    def update(self, update: Tensor, scene: Scene) -> Tensor:
        """Scaled, and capped."""
        scaled = update * (replacing_scale(scene) if self.scale is None else self.scale)
        return scaled if self.cap is None else projected(scaled, self.cap)


def replacing_scale(scene: Scene) -> float:
    """n / eta, n the participants of the round; divided among the attackers of the round where they collude.

    Raises:
        ConfigurationError: the strategy does not say how many take part.
    """
    from fedmeta.optimisers import schedule

    if scene.participants is None:
        raise ConfigurationError("the strategy does not tell how many clients take part: set attack.method.scale")
    server = scene.experiment.server
    eta = float(server.optimiser.parameters.get("lr", 1.0)) * schedule(server.schedule, server.progress(scene.round))
    share = max(1, len(scene.attackers)) if scene.attack.knowledge == "colluding" else 1
    return scene.participants / (eta * share)
