"""MetaBackdoor: a backdoor trained through the inner loop, so that it survives adaptation on clean data.

Generalises the one-shot attack of Chen et al. 2020 (Backdoor attacks on federated meta-learning, arXiv 2006.07026).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fedmeta.attacks.local import Backdoor, Scene
from fedmeta.attacks.poisoning import choose, poison_support
from fedmeta.attacks.tether import Tethered, projected
from fedmeta.attacks.triggers import unchanged
from fedmeta.cohort import Gradient, LocalPlan
from fedmeta.errors import ConfigurationError
from fedmeta.gradients import value_and_grad
from fedmeta.learners.base import MetaLearner, Metrics
from fedmeta.learners.functional import forward, measure, ways_of
from fedmeta.learners.protonet import ProtoNet
from fedmeta.learners.reptile import Reptile
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.seeding import numpy_generator
from fedmeta.tasks import Batch, Episode

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment


@dataclass(frozen=True)
class MetaBackdoor(Backdoor):
    """min over phi of E_T [ loss(U_k(phi; S), Q) + weight * mean over j in steps of loss(U_j(phi; S), Q') ].

    U_j are j inner steps on the clean support; Q' are the queries not of the target's class, with the trigger and the
    wanted slot. The update, scaled or not, stays within a ball around the global model.

    Learners with an inner loop (MAML, ANIL, Meta-SGD; FOMAML's clients too, whatever they do when honest) are unrolled;
    with `first_order`, and for Reptile and FedAvg, the gradient at U_j stands for that at phi. Reptile's attacker
    descends this loss too, instead of moving towards U_k. ProtoNet has no steps: the loss is taken on the prototypes of
    the support, and the triggered queries are also pulled to the wanted one, mean ||e(x') - stopgrad(c)||^2.
    """

    colludes: ClassVar[bool] = True

    poison_fraction: float = parameter(1.0, ge=0, le=1, doc="share of the queries that could be misled")
    weight: float = parameter(1.0, ge=0, doc="of the backdoor's loss against the clean one")
    steps: tuple[int, ...] = parameter((0, 1, 5), ge=0, doc="adaptation steps that it shall survive", unit="steps")
    radius: float = parameter(1.0, gt=0, doc="of the ball", unit="lengths of an honest update")
    first_order: bool = parameter(False, doc="take the inner loop's Jacobian for the identity")
    local_steps: int | None = parameter(None, ge=1, doc="outer steps a round; none: as honest clients", unit="steps")
    scale: float = parameter(1.0, gt=0, doc="what the update is multiplied by before it is held in the ball")

    def check(self, experiment: "Experiment", data: Any) -> None:
        """Refuse steps out of order, and example-level privacy, whose gradients are of another kind."""
        super().check(experiment, data)
        if not self.steps or list(self.steps) != sorted(set(self.steps)):
            raise ConfigurationError(f"attack.method.steps = {list(self.steps)} must ascend, such as [0, 1, 5]")
        if experiment.privacy.unit == "example":
            raise ConfigurationError(
                "attack.method = 'meta_backdoor' is not available with privacy.unit = 'example': its gradient takes "
                "the place of the one that is clipped and noised. Use the task or client unit"
            )

    def poison(self, episode: Episode, scene: Scene, rng: np.random.Generator) -> Episode:
        """Episodes stay clean: both losses are taken on each."""
        return episode

    def plan(self, plan: LocalPlan, scene: Scene) -> LocalPlan:
        """With the gradient of the combined loss, in the ball."""
        tether = Tethered(plan.optimiser, scene.spec.size(), radius=self.radius * scene.honest_norm)
        steps = plan.steps if self.local_steps is None else self.local_steps
        return replace(plan, steps=steps, optimiser=tether, gradient=lambda client, step: self._gradient(scene, step))

    def update(self, update: Tensor, scene: Scene) -> Tensor:
        """Scaled, within the ball."""
        return projected(self.scale * update, self.radius * scene.honest_norm)

    def _gradient(self, scene: Scene, step: int) -> Gradient:
        rng = numpy_generator(scene.experiment.seed, scene.round, scene.client, f"triggered queries/{step}")

        def gradient(params: Params, episode: Episode) -> tuple[Params, Metrics]:
            clean, metrics = clean_gradient(scene.learner, params, episode)
            poisoned = self._poisoned(episode, scene, rng)
            if poisoned is None or self.weight == 0:
                return clean, metrics
            bad = backdoor_gradient(scene.learner, params, poisoned, self.steps, self.first_order)
            return {name: value + self.weight * bad[name] for name, value in clean.items()}, metrics

        return gradient

    def _poisoned(self, episode: Episode, scene: Scene, rng: np.random.Generator) -> Episode | None:
        """The episode with nothing but triggered queries of wanted labels; None where there are none."""
        aim, where = self.aim(episode, scene.attack), scene.attack.trigger_in
        chosen = None if aim is None else choose(aim.eligible(episode.query.y), self.poison_fraction, rng)
        if aim is None or chosen is None or not len(chosen):
            return None
        trigger = self.training_trigger(scene)
        if where != "query":
            episode = poison_support(episode, aim, trigger, 1.0, "trigger", rng)
        on_query = unchanged if where == "support" else trigger
        x, y = episode.query.x[chosen], episode.query.y[chosen]
        return episode._replace(query=Batch(on_query(x), aim.label(y)))


def clean_gradient(learner: MetaLearner, params: Params, episode: Episode) -> tuple[Params, Metrics]:
    """The gradient of the query's loss after adaptation: the learner's own, Reptile's at the adapted parameters."""
    if not isinstance(learner, Reptile):
        return learner.meta_gradient(params, episode)
    [adapted] = learner.trajectory(params, episode.support, ways_of(episode), (learner.inner_steps,))

    def objective(phi: Params) -> tuple[Tensor, Metrics]:
        return measure(learner.task, learner.predict(phi, episode.query.x), episode.query.y)

    grads, _, metrics = value_and_grad(objective, adapted)
    return grads, metrics


def backdoor_gradient(
    learner: MetaLearner, params: Params, poisoned: Episode, steps: Sequence[int], first_order: bool
) -> Params:
    """d/dphi of the mean over `steps` of the loss of the poisoned queries after so many steps on the support.

    Args:
        learner: any; see `MetaBackdoor` for what each kind allows.
        params: phi.
        poisoned: clean support, triggered queries with the wanted slots.
        steps: ascending numbers of steps; ProtoNet has none.
        first_order: take the gradient at the adapted parameters for that at phi.
    """
    support, query, ways = poisoned.support, poisoned.query, ways_of(poisoned)
    if isinstance(learner, ProtoNet):
        return _protonet_gradient(learner, params, poisoned)
    unrolled = None if first_order else getattr(learner, "unrolled", None)
    if unrolled is not None:

        def objective(phi: Params) -> tuple[Tensor, tuple[()]]:
            losses = [
                learner.task.loss(learner.predict(state, query.x), query.y)
                for state in unrolled(phi, support, ways, steps)
            ]
            return torch.stack(losses).mean(), ()

        return value_and_grad(objective, params)[0]
    total = {name: torch.zeros_like(value) for name, value in params.items()}
    for adapted in learner.trajectory(params, support, ways, steps):
        grads, _, _ = value_and_grad(
            lambda phi: (learner.task.loss(learner.predict(phi, query.x), query.y), ()), adapted
        )
        for name, value in grads.items():
            # A head that adaptation has put in place of another (FedAvg's) has no counterpart in phi.
            if name in total and total[name].shape == value.shape:
                total[name] = total[name] + value / len(steps)
    return total


def _protonet_gradient(learner: ProtoNet, params: Params, poisoned: Episode) -> Params:
    query = poisoned.query

    def objective(phi: Params) -> tuple[Tensor, tuple[()]]:
        prototypes = learner.adapt(phi, poisoned.support, ways_of(poisoned), 1)
        loss = learner.task.loss(learner.predict(prototypes, query.x), query.y)
        wanted = prototypes.means.detach()[query.y]
        pull = (forward(learner.model, phi, query.x) - wanted).square().sum(dim=-1).mean()
        return loss + pull, ()

    return value_and_grad(objective, params)[0]
