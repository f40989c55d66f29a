"""A fresh head before adaptation: simple tuning (Qin et al., KDD 2023, Revisiting personalized federated learning)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmeta.deployment.base import Deployed
from fedmeta.errors import ConfigurationError
from fedmeta.learners import LEARNERS
from fedmeta.learners.base import Adapted
from fedmeta.learners.functional import features, outputs, require_head
from fedmeta.learners.inner_loop import descend, last
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.seeding import SERVER, numpy_generator
from fedmeta.tasks import Batch


@dataclass(frozen=True)
class RandomFineTune(Deployed):
    """Draw the head anew, fine-tune it on the support with the body at rest, then adapt as the learner does.

    The numbers of steps that success and accuracy are given for are those of the learner, after the head's own: even at
    0 of them the support has been seen. The meta-learnt head is lost with the backdoor's, and with it what made few
    steps enough.
    """

    steps: int = parameter(20, ge=0, doc="of the head alone, before adaptation", unit="steps")
    lr: float = parameter(0.1, gt=0, doc="step size of these")
    seed: int = parameter(0, ge=0, doc="of the head's draw")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head != "ways":
            raise ConfigurationError(
                "evaluation.deployment: random_finetune needs a head that comes with the model, which learner "
                f"'{LEARNERS.name_of(self.learner)}' does not deploy. Use matching_head, or remove it"
            )
        require_head(self.model, "random_finetune")

    def trajectory(self, params: Params, support: Batch, ways: int, steps: Sequence[int]) -> Iterator[Adapted]:
        """The learner's own, from the body as it came and a fresh head that has seen the support."""
        # The features do not change while only the head moves, so they are computed once.
        z = features(self.model, params, support.x).detach()
        moved = descend(lambda head: self.task.loss(outputs(head, z), support.y), self.fresh_head(params), self.lr)
        return self.learner.trajectory({**params, **last(moved, self.steps)}, support, ways, steps)

    def predict(self, adapted: Adapted, x: Tensor) -> Tensor:
        """The learner's own."""
        return self.learner.predict(adapted, x)

    def fresh_head(self, params: Params) -> Params:
        """`head.*` drawn as `nn.Linear` draws: uniform within 1 / sqrt(features) of 0."""
        # By numpy, since vmap allows no draws of torch's.
        rng = numpy_generator(self.seed, 0, SERVER, "random head")
        bound = 1 / math.sqrt(params["head.weight"].shape[-1])
        names = [name for name in ("head.weight", "head.bias") if name in params]
        return {
            name: torch.from_numpy(rng.uniform(-bound, bound, params[name].shape)).to(params[name]) for name in names
        }
