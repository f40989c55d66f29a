"""TRADES (Zhang et al., ICML 2019, equation 5) as the outer loss of a meta-learner."""

from dataclasses import dataclass

from torch import Tensor

from fedmeta.adversarial.base import Attack, Objective, clean_outputs, judged
from fedmeta.learners.base import Adapted, MetaLearner, Metrics, QueryLearner
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode


@dataclass(frozen=True)
class Trades(Objective):
    """L_query(adapted; clean queries) + beta * mean KL(p(clean) || p(attacked)); the attack raises that divergence.

    It starts in the ball, and not at the input, where the divergence is flat. The gradient passes through both
    arguments, as in the authors' code.
    """

    beta: float = parameter(6.0, doc="of the divergence against the clean loss", ge=0)

    def meta_gradient(
        self, learner: QueryLearner, params: Params, episode: Episode, attack: Attack
    ) -> tuple[Params, Metrics]:
        """The learner's own, of the clean loss and the divergence."""

        def outer(learner: MetaLearner, adapted: Adapted, query: Batch) -> tuple[Tensor, Metrics]:
            fixed = clean_outputs(learner, adapted, query)
            moved = attack(learner, adapted, query, loss=lambda logits, _: divergence(fixed, logits))
            output = learner.predict(adapted, query.x)
            apart = divergence(output, learner.predict(adapted, moved.x)).mean()
            return judged(learner, output, query.y, learner.task.loss(output, query.y) + self.beta * apart)

        return learner.query_gradient(params, episode, outer)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(softmax p || softmax q) of logits `[n, ways]`, in nats: `[n]`.

    >>> import torch
    >>> two = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    >>> divergence(two, torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    tensor([0.0000, 0.1201])
    """
    p, q = p.log_softmax(dim=-1), q.log_softmax(dim=-1)
    return (p.exp() * (p - q)).sum(dim=-1)
