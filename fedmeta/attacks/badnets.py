"""BadNets (Gu et al., 2017) and the blended trigger (Chen et al., 2017): poisoned data, honest training."""

from dataclasses import dataclass

from fedmeta.attacks.local import Backdoor, Scene
from fedmeta.attacks.triggers import Trigger, TriggerName, make_trigger
from fedmeta.parameters import parameter


@dataclass(frozen=True)
class BadNets(Backdoor):
    """Train on episodes some of whose queries carry the trigger and the wanted label."""


@dataclass(frozen=True)
class Blended(Backdoor):
    """BadNets with a trigger that covers the whole input and hardly shows."""

    trigger: TriggerName = parameter("blended", doc="what is put on an input")
    alpha: float = parameter(0.2, gt=0, le=1, doc="opacity of the trigger")

    def whole_trigger(self, scene: Scene) -> Trigger:
        """The trigger at this opacity."""
        return make_trigger(self.trigger, scene.input_shape, alpha=self.alpha)
