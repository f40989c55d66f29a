"""BadNets (Gu et al., 2017) and the blended trigger (Chen et al., 2017): poisoned data, honest training."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedmeta.attacks.local import Backdoor, Scene
from fedmeta.attacks.triggers import Trigger, TriggerName, make_trigger
from fedmeta.parameters import parameter

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment


@dataclass(frozen=True)
class BadNets(Backdoor):
    """Train on episodes some of whose queries carry the trigger and the wanted label."""


@dataclass(frozen=True)
class Blended(Backdoor):
    """BadNets with a trigger that covers the whole input and hardly shows."""

    trigger: TriggerName = parameter("blended", doc="what is put on an input")
    alpha: float = parameter(0.2, gt=0, le=1, doc="opacity of the trigger")

    def check(self, experiment: "Experiment", data: Any) -> None:
        """As every backdoor; warns of an opacity that its trigger does not have."""
        super().check(experiment, data)
        if self.trigger != "blended" and self.alpha != type(self).alpha:
            warnings.warn(
                f"attack.method.alpha has no effect: attack.method.trigger = '{self.trigger}' is opaque", stacklevel=6
            )

    def whole_trigger(self, scene: Scene) -> Trigger:
        """The trigger at this opacity."""
        own = getattr(scene.data, "trigger", None)
        return make_trigger(self.trigger, scene.input_shape, alpha=self.alpha, own=own)
