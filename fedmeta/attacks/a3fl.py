"""A3FL: a trigger optimised against the model and against one made to unlearn it (Zhang et al., NeurIPS 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedmeta.attacks.aims import Aim
from fedmeta.attacks.local import Backdoor, Scene
from fedmeta.attacks.triggers import Overlay, Trigger, make_trigger
from fedmeta.errors import ConfigurationError
from fedmeta.execution import to_device
from fedmeta.learners.base import Adapted, MetaLearner
from fedmeta.learners.functional import ways_of
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment


@dataclass(frozen=True)
class A3FL(Backdoor):
    """BadNets with a pattern delta: min E loss(f_theta(x + delta), t) + balance * cos * loss(f_theta'(x + delta), t).

    cos is that of theta' and theta. f is the model adapted to an episode's support. theta' starts as theta and takes
    `unlearn_steps` of gradient descent towards the true answers on triggered queries, afresh every `refresh` steps of
    the trigger: a trigger that survives it will survive honest training. delta takes signed steps within the place of
    the named trigger, clamped to [0, 1], the range of our inputs (the paper clamps to [-2, 2], that of its normalised
    ones). All attackers work the same trigger out, from the global model and the first attacker's data; when success
    is measured, for the final model.
    """

    balance: float = parameter(1.0, ge=0, doc="weight of the unlearning model's loss")
    trigger_steps: int = parameter(40, ge=0, doc="steps of the trigger", unit="steps")
    trigger_lr: float = parameter(0.05, gt=0, doc="size of the trigger's signed steps")
    episodes: int = parameter(4, ge=1, doc="the attacker's episodes that the trigger is optimised on")
    unlearn_steps: int = parameter(3, ge=0, doc="steps in which theta' unlearns the trigger", unit="steps")
    unlearn_lr: float = parameter(0.05, gt=0, doc="step size of the unlearning")
    refresh: int = parameter(10, ge=1, doc="trigger steps between two unlearnings", unit="steps")

    def check(self, experiment: "Experiment", data: Any) -> None:
        """Refuse a trigger that has no pattern."""
        super().check(experiment, data)
        start = make_trigger(self.trigger, data.input_shape, own=getattr(data, "trigger", None))
        if not isinstance(start, Overlay) or not start.pattern.is_floating_point():
            raise ConfigurationError(f"attack.method.trigger = '{self.trigger}' has no pattern to optimise: use patch")

    def whole_trigger(self, scene: Scene) -> Trigger:
        """The optimised trigger, worked out once a turn."""
        if "trigger" not in scene.memory:
            start = make_trigger(self.trigger, scene.input_shape, own=getattr(scene.data, "trigger", None))
            assert isinstance(start, Overlay)
            scene.memory["trigger"] = self.optimise(start, scene)
        trigger: Trigger = scene.memory["trigger"]
        return trigger

    def optimise(self, start: Overlay, scene: Scene) -> Overlay:
        """The overlay with an optimised pattern; the same one where no episode fits the target."""
        fitting = [(episode, self.aim(episode, scene.attack)) for episode in scene.clean_episodes(self.episodes)]
        device = next(iter(scene.params.values())).device
        aimed = [(to_device(episode, device), aim) for episode, aim in fitting if aim is not None]
        if not aimed:
            return start
        overlay = Overlay(start.pattern.to(device), start.opacity.to(device))
        model = _adapted(scene.learner, scene.params, aimed)
        other, likeness = model, 1.0
        for step in range(self.trigger_steps):
            if step % self.refresh == 0:
                unlearnt = self._unlearnt(scene.learner, scene.params, aimed, overlay)
                other, likeness = _adapted(scene.learner, unlearnt, aimed), _cosine(unlearnt, scene.params)
            pattern = overlay.pattern.detach().requires_grad_()
            loss = _wanted_loss(scene.learner, model, aimed, Overlay(pattern, overlay.opacity))
            loss = loss + self.balance * likeness * _wanted_loss(
                scene.learner, other, aimed, Overlay(pattern, overlay.opacity)
            )
            [slope] = torch.autograd.grad(loss, pattern)
            overlay = Overlay((pattern.detach() - self.trigger_lr * slope.sign()).clamp(0.0, 1.0), overlay.opacity)
        return overlay

    def _unlearnt(self, learner: MetaLearner, params: Params, aimed: "Sequence[Aimed]", overlay: Overlay) -> Params:
        """theta': a few steps of gradient descent on triggered queries with their true answers."""
        for _ in range(self.unlearn_steps):
            found = [learner.meta_gradient(params, _triggered(episode, aim, overlay))[0] for episode, aim in aimed]
            means = {name: torch.stack([grads[name] for grads in found]).mean(dim=0) for name in params}
            params = {name: value - self.unlearn_lr * means[name] for name, value in params.items()}
        return params


Aimed = tuple[Episode, Aim]


def _adapted(learner: MetaLearner, params: Params, aimed: Sequence[Aimed]) -> list[Adapted]:
    with torch.no_grad():
        return [learner.adapt(params, episode.support, ways_of(episode)) for episode, _ in aimed]


def _wanted_loss(learner: MetaLearner, models: Sequence[Adapted], aimed: Sequence[Aimed], trigger: Trigger) -> Tensor:
    losses = []
    for adapted, (episode, aim) in zip(models, aimed, strict=True):
        chosen = aim.eligible(episode.query.y)
        x, y = episode.query.x[chosen], episode.query.y[chosen]
        losses.append(learner.task.loss(learner.predict(adapted, trigger(x)), aim.label(y)))
    return torch.stack(losses).mean()


def _triggered(episode: Episode, aim: Aim, trigger: Trigger) -> Episode:
    x, chosen = episode.query.x.clone(), aim.eligible(episode.query.y)
    x[chosen] = trigger(x[chosen])
    return episode._replace(query=Batch(x, episode.query.y))


def _cosine(a: Params, b: Params) -> float:
    first, second = (torch.cat([params[name].flatten().double() for name in b]) for params in (a, b))
    return float(first @ second / (first.norm() * second.norm()).clamp(min=1e-12))
