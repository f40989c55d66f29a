"""Adversarial querying (Goldblum et al., NeurIPS 2020, algorithm 2)."""

from dataclasses import dataclass

from torch import Tensor

from fedmeta.adversarial.base import Attack, Objective, clean_outputs, judged
from fedmeta.learners.base import Adapted, MetaLearner, Metrics, QueryLearner
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode


@dataclass(frozen=True)
class AQ(Objective):
    """L_query(adapted; attacked queries): the support is clean, in training as in use.

    The attack raises the cross-entropy of the adapted model, and is a constant to the outer gradient.
    """

    def meta_gradient(
        self, learner: QueryLearner, params: Params, episode: Episode, attack: Attack
    ) -> tuple[Params, Metrics]:
        """The learner's own, of attacked queries."""

        def outer(learner: MetaLearner, adapted: Adapted, query: Batch) -> tuple[Tensor, Metrics]:
            moved = attack(learner, adapted, query)
            loss = learner.task.loss(learner.predict(adapted, moved.x), moved.y)
            return judged(learner, clean_outputs(learner, adapted, query), query.y, loss)

        return learner.query_gradient(params, episode, outer)
