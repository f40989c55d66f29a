"""The distributed backdoor attack (Xie et al., ICLR 2020)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fedmeta.attacks.local import Backdoor, Scene
from fedmeta.attacks.triggers import Trigger, TriggerName, bars, union
from fedmeta.errors import ConfigurationError
from fedmeta.parameters import parameter

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment


@dataclass(frozen=True)
class DBA(Backdoor):
    """Each attacker trains with its own part of the trigger; success is measured with all parts at once.

    The part is that of the attacker's place among all malicious clients. The paper's single-shot form scales the
    update by 100; by default nothing is scaled, as in its multi-shot form.
    """

    trigger: TriggerName = parameter("bars", doc="its parts are bars")
    parts: int = parameter(4, ge=1, doc="parts of the trigger, dealt to the attackers in turn")
    scale: float = parameter(1.0, gt=0, doc="what the update is multiplied by; 100 in the single-shot form")

    def check(self, experiment: "Experiment", data: Any) -> None:
        """Refuse inputs too small for all parts."""
        if self.trigger != "bars":
            raise ConfigurationError(f"attack.method.trigger = '{self.trigger}' has no parts: use bars")
        super().check(experiment, data)
        bars(data.input_shape, self.parts)

    def training_trigger(self, scene: Scene) -> Trigger:
        """This attacker's part."""
        return bars(scene.input_shape, self.parts)[scene.malicious.index(scene.client) % self.parts]

    def whole_trigger(self, scene: Scene) -> Trigger:
        """The union of the parts."""
        return union(bars(scene.input_shape, self.parts))

    def update(self, update: Tensor, scene: Scene) -> Tensor:
        """Scaled."""
        return update * self.scale
