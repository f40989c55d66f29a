"""What objectives of adversarial meta-training have in common: an attack within the outer step, which grows."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor

from fedmeta.cohort import Gradient
from fedmeta.evasion.ball import Ball
from fedmeta.evasion.losses import cross_entropy
from fedmeta.evasion.pgd import Loss, ascend
from fedmeta.gradients import detach
from fedmeta.learners.base import Adapted, MetaLearner, Metrics, QueryLearner
from fedmeta.learners.draws import task_seed
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.seeding import SERVER, derive
from fedmeta.tasks import Batch, Episode

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment


@dataclass(frozen=True)
class Attack:
    """The attack of one round, on an adapted model that it takes for fixed.

    It starts at a random point of the ball, drawn from the salt and the inputs themselves: equal in a loop and batched,
    on every engine, and new in every round.

    Attributes:
        ball: how far inputs may move in this round.
        steps: of gradient ascent.
        step: length of one, in units of the ball's radius.
        salt: from the run's seed and the round.
    """

    ball: Ball
    steps: int
    step: float
    salt: int

    def __call__(
        self, learner: MetaLearner, adapted: Adapted, batch: Batch, loss: Loss = cross_entropy, stream: int = 0
    ) -> Batch:
        """The batch with attacked inputs.

        Args:
            learner: that predicts.
            adapted: what it adapted to.
            batch: clean inputs `[n, *shape]` within the ball's range, and labels.
            loss: of each output, which the attack raises.
            stream: another one is another random start.
        """
        fixed, x = detach(adapted), batch.x.detach()
        start = self.ball.random(x, task_seed(x) + self.salt, stream)
        moved = ascend(
            lambda point: learner.predict(fixed, point),
            x,
            batch.y,
            self.ball,
            start=start,
            steps=self.steps,
            step=self.step,
            loss=loss,
        )
        return Batch(moved, batch.y)


@dataclass(frozen=True)
class Plain:
    """The learner's own outer loss."""


@dataclass(frozen=True)
class Objective(ABC):
    """An outer loss with an attack in it; subclasses say which. Support and adaptation stay clean unless they say so.

    The radius grows evenly over the first `warm_up` of the rounds: from a random model an attack of full strength
    teaches little. Clients that train so are told apart by their ids alone (`trains`).
    """

    eps: float = parameter(0.1, doc="radius of the ball that queries move in", unit="pixels in [0, 1]", gt=0)
    norm: Literal["linf", "l2"] = parameter("linf", doc="of the ball")
    steps: int = parameter(5, doc="gradient steps of the attack, each of which costs a gradient", unit="steps", ge=1)
    step: float = parameter(0.4, doc="length of a step, in units of eps", gt=0)
    warm_up: float = parameter(1 / 3, doc="share of the rounds over which the radius grows to eps", ge=0, le=1)
    share: float = parameter(1.0, doc="share of the clients that train so; the others train plainly", gt=0, le=1)

    @abstractmethod
    def meta_gradient(
        self, learner: QueryLearner, params: Params, episode: Episode, attack: Attack
    ) -> tuple[Params, Metrics]:
        """One task's gradient; metrics are the loss that it descends, and the task's score on clean queries."""

    def attack(self, experiment: "Experiment", round: int) -> Attack:
        """The attack of a round, counted from 1."""
        over = self.warm_up * experiment.server.rounds
        grown = min(1.0, round / over) if over else 1.0
        salt = derive(experiment.seed, round, SERVER, "adversarial starts") % 2**62
        return Attack(Ball(self.norm, grown * self.eps), self.steps, self.step, salt)

    def gradient(self, learner: MetaLearner, experiment: "Experiment", round: int) -> Gradient:
        """What takes the place of the learner's `meta_gradient` in a round."""
        attack, trained = self.attack(experiment, round), cast(QueryLearner, learner)
        return lambda params, episode: self.meta_gradient(trained, params, episode, attack)

    def trains(self, seed: int, client: int) -> bool:
        """Whether a client trains so; a larger share adds clients to a smaller one's.

        By multiples of the golden ratio, which fill [0, 1) evenly: of n successive ids close to share * n do, and a
        client needs to know of no other one.
        """
        offset = derive(seed, 0, SERVER, "adversarial clients") / 2**64
        return (offset + client * 0.6180339887498949) % 1.0 < self.share


def judged(learner: MetaLearner, output: Tensor, y: Tensor, loss: Tensor) -> tuple[Tensor, Metrics]:
    """A loss, with the metrics that clients send: itself, and the score of clean outputs `[n, ways]`."""
    return loss, {"loss": loss, learner.task.score_name: learner.task.score(output.detach(), y)}


def clean_outputs(learner: MetaLearner, adapted: Adapted, query: Batch) -> Tensor:
    """Outputs on clean queries, for a score that nothing is learnt from."""
    with torch.no_grad():
        return learner.predict(detach(adapted), query.x)
