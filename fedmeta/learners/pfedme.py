"""pFedMe (Dinh et al. 2020): the shared model descends the Moreau envelope of each client's loss."""

from dataclasses import dataclass

from fedmeta.learners.base import Metrics
from fedmeta.learners.functional import forward, joined, measure
from fedmeta.learners.inner_loop import last
from fedmeta.learners.personal import PERSONAL, PersonalWeights
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.tasks import Episode


@dataclass(frozen=True)
class PFedMe(PersonalWeights):
    """Personalised federated learning with Moreau envelopes (Dinh et al. 2020, algorithm 1, equations 3 and 5).

    F_k(w) = min over v of f_k(v) + regularisation/2 ||v - w||^2. Its gradient is regularisation * (w - v*(w)): the
    inner problem is solved by `inner_steps` of gradient descent from the client's last personal weights, which then
    are v. The steps are stable where inner_lr < 2 / (regularisation + curvature).
    """

    inner_lr: float = parameter(0.05, doc="step size of the personal weights", gt=0)
    regularisation: float = parameter(15.0, doc="lambda, of the pull towards the shared model", gt=0)
    inner_steps: int = parameter(5, doc="steps on the personal weights in training", unit="steps", ge=1)

    def meta_gradient(self, params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """regularisation * (w - v) and what v moves by, over support and query; metrics are those of the new v."""
        data = joined(episode)
        found = last(self._path(params, data), self.inner_steps)
        _, metrics = measure(self.task, forward(self.model, found, data.x), data.y)
        shared = {name: self.regularisation * (params[name].detach() - value) for name, value in found.items()}
        own = {PERSONAL + name: params[PERSONAL + name].detach() - value for name, value in found.items()}
        return {name: {**shared, **own}[name] for name in params}, metrics
