"""Mahalanobis distance in the support's embedding space (Lee et al., NeurIPS 2018, equation 2)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedmeta.learners.base import MetaLearner
from fedmeta.learners.functional import joined
from fedmeta.learners.protonet import class_means
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.query_detection.base import View, require_one_model
from fedmeta.tasks import Episode


@dataclass(frozen=True)
class Mahalanobis:
    """min over k of (e(x) - c_k)' P (e(x) - c_k), c_k being the mean embedding of class k's support.

    P is the inverse of the pooled covariance within classes of meta-training episodes, which a few shots could not
    give: (1 - shrinkage) S + shrinkage tr(S)/d I.
    """

    shrinkage: float = parameter(0.1, doc="weight of a multiple of the identity in the covariance", gt=0, le=1)
    precision: Tensor | None = None

    def fitted(self, learner: MetaLearner, params: Params, episodes: Sequence[Episode]) -> "Mahalanobis":
        """With P of the deviations of embeddings from their class' mean, each in its episode's adapted space."""
        require_one_model(learner, "mahalanobis")
        rows, classes = [], 0
        with torch.no_grad():
            for episode in episodes:
                view, data = View.of(learner, params, episode), joined(episode)
                z = view.embed(data.x).double()
                rows.append(z - class_means(z, data.y, view.ways)[data.y])
                classes += view.ways
        deviations = torch.cat(rows)
        spread = deviations.T @ deviations / max(1, len(deviations) - classes)
        size = len(spread)
        even = torch.eye(size, dtype=spread.dtype, device=spread.device) * spread.trace() / size
        mixed = (1 - self.shrinkage) * spread + self.shrinkage * even
        return replace(self, precision=torch.linalg.inv(mixed).to(next(iter(params.values())).dtype))

    def scores(self, view: View, x: Tensor) -> Tensor:
        """See `Detector`.

        Raises:
            ValueError: before `fitted`.
        """
        if self.precision is None:
            raise ValueError("a covariance is needed first: fit the detector on meta-training episodes")
        means = class_means(view.embed(view.support.x), view.support.y, view.ways)
        apart = view.embed(x).unsqueeze(1) - means
        return ((apart @ self.precision) * apart).sum(dim=-1).amin(dim=-1)
