"""Ditto (Li et al. 2021): personal weights beside an ordinary shared model, which they do not touch."""

from dataclasses import dataclass

from torch import Tensor

from fedmeta.gradients import value_and_grad
from fedmeta.learners.base import Metrics
from fedmeta.learners.functional import forward, joined, measure
from fedmeta.learners.inner_loop import last
from fedmeta.learners.personal import PERSONAL, PersonalWeights
from fedmeta.params import Params
from fedmeta.tasks import Episode


@dataclass(frozen=True)
class Ditto(PersonalWeights):
    """Fair and robust personalisation (Li et al. 2021, algorithm 1, equation 2).

    The shared model w is trained as by federated averaging, on grad F_k(w). Each client's v takes one step of
    `inner_lr` on F_k(v) + regularisation/2 ||v - w||^2 for each step of w. Since v does not flow back, it stands
    whatever an attacker makes of w, the more so the smaller `regularisation` is: 0 is local training.
    """

    def meta_gradient(self, params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """grad F_k(w) over support and query, and what v moves by, both at the old w; metrics are those of v."""
        data = joined(episode)
        shared = {name: value for name, value in params.items() if not name.startswith(PERSONAL)}

        def objective(w: Params) -> tuple[Tensor, tuple[()]]:
            return self._loss(w, data), ()

        slope, _, _ = value_and_grad(objective, shared)
        moved = last(self._path(params, data), 1)
        own = {PERSONAL + name: params[PERSONAL + name].detach() - value for name, value in moved.items()}
        start = {name: params[PERSONAL + name].detach() for name in moved}
        _, metrics = measure(self.task, forward(self.model, start, data.x), data.y)
        return {name: {**slope, **own}[name] for name in params}, metrics
