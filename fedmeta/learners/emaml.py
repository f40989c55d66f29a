"""E-MAML (Stadie et al. 2018; Al-Shedivat et al. 2018): MAML that is told what its support was drawn for."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.gradients import value_and_grad
from fedmeta.learners.base import Metrics
from fedmeta.learners.functional import measure
from fedmeta.learners.inner_loop import last
from fedmeta.learners.maml import MAML
from fedmeta.params import Params
from fedmeta.rl.estimators import score_term
from fedmeta.rl.trajectories import Trajectories
from fedmeta.tasks import Episode


@dataclass(frozen=True)
class EMAML(MAML):
    """MAML for policies, whose support is drawn by the parameters that are trained (Al-Shedivat et al., equation 5).

    To MAML's meta-gradient comes that of L_query(theta_k) log p(support; theta): rollouts that lead to good adaptation
    are made more likely. What the query's loss was before adaptation is taken from it, which changes no expectation.
    With more than one inner step all play the same draws, and count once.
    """

    serves: ClassVar[tuple[str, ...]] = ("control",)

    def meta_gradient(self, params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """d/dtheta of the query loss at theta_k(theta), and of the score of the support."""
        support, query = episode.support, episode.query
        with torch.no_grad():
            before = self.task.loss(self.predict(params, query.x), query.y)

        def objective(theta: Params) -> tuple[Tensor, Metrics]:
            adapted = last(self._path(theta, support, create_graph=True), self.inner_steps)
            loss, metrics = measure(self.task, self.predict(adapted, query.x), query.y)
            played = Trajectories.of(self.predict(theta, support.x))
            score = score_term(played.log_probs * played.alive, loss - before)
            return loss + score, metrics

        grads, _, metrics = value_and_grad(objective, params)
        return grads, metrics
