"""ADML, the adversarial meta-learner (Yin et al. 2018, algorithm 1)."""

from dataclasses import dataclass

from torch import Tensor

from fedmeta.adversarial.base import Attack, Objective, clean_outputs, judged
from fedmeta.learners.base import Adapted, MetaLearner, Metrics, QueryLearner
from fedmeta.learners.functional import query_loss, ways_of
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode


@dataclass(frozen=True)
class ADML(Objective):
    """(L_query(adapted to an attacked support; clean queries) + L_query(adapted to a clean one; attacked queries)) / 2.

    The paper takes the two outer steps one after the other; here they are one, of their mean. It makes its attacks at
    theta, where a learner's outputs say nothing yet of this task; here they are made at the model adapted to the clean
    support, for the support too.
    """

    def meta_gradient(
        self, learner: QueryLearner, params: Params, episode: Episode, attack: Attack
    ) -> tuple[Params, Metrics]:
        """The mean of two gradients; the metrics are means too, but for the score, which is on clean queries."""
        support, ways = episode.support, ways_of(episode)
        [adapted] = learner.trajectory(params, support, ways, (learner.training_steps,))
        poisoned = episode._replace(support=attack(learner, adapted, support, stream=1))

        def outer(learner: MetaLearner, adapted: Adapted, query: Batch) -> tuple[Tensor, Metrics]:
            moved = attack(learner, adapted, query)
            loss = learner.task.loss(learner.predict(adapted, moved.x), moved.y)
            return judged(learner, clean_outputs(learner, adapted, query), query.y, loss)

        first, under_attack = learner.query_gradient(params, poisoned, query_loss)
        second, metrics = learner.query_gradient(params, episode, outer)
        loss = (under_attack["loss"] + metrics["loss"]) / 2
        return {name: (value + second[name]) / 2 for name, value in first.items()}, {**metrics, "loss": loss}
