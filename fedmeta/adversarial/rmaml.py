"""R-MAML: robustness in the outer loop only (Wang et al., ICLR 2021, equation 3)."""

from dataclasses import dataclass

from torch import Tensor

from fedmeta.adversarial.base import Attack, Objective, judged
from fedmeta.learners.base import Adapted, MetaLearner, Metrics, QueryLearner
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode


@dataclass(frozen=True)
class RMAML(Objective):
    """L_query(adapted; clean queries) + weight * L_query(adapted; attacked queries).

    The paper's further contrastive term on unlabelled views is left out.
    """

    weight: float = parameter(1.0, doc="of the attacked queries' loss against the clean ones'", gt=0)

    def meta_gradient(
        self, learner: QueryLearner, params: Params, episode: Episode, attack: Attack
    ) -> tuple[Params, Metrics]:
        """The learner's own, of both losses."""

        def outer(learner: MetaLearner, adapted: Adapted, query: Batch) -> tuple[Tensor, Metrics]:
            moved, task = attack(learner, adapted, query), learner.task
            output = learner.predict(adapted, query.x)
            attacked = task.loss(learner.predict(adapted, moved.x), moved.y)
            return judged(learner, output, query.y, task.loss(output, query.y) + self.weight * attacked)

        return learner.query_gradient(params, episode, outer)
