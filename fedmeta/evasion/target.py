"""From a learner and an episode to the function under attack: of the query, of the support, or of both."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError
from fedmeta.evasion.base import Logits
from fedmeta.learners import LEARNERS
from fedmeta.learners.base import MetaLearner
from fedmeta.learners.functional import ways_of
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode

Part = Literal["query", "support", "both"]
"""What the attacker moves."""

PARTS: tuple[Part, ...] = ("query", "support", "both")


class Target(NamedTuple):
    """One episode as an attack sees it.

    Attributes:
        logits_of: see `fedmeta.evasion.base.Logits`.
        x: clean inputs: queries `[n, *shape]`, or one set of examples `[1, examples, *shape]`.
        y: labels of the queries: `[n]`, or `[1, n]`.
    """

    logits_of: Logits
    x: Tensor
    y: Tensor

    @property
    def lead(self) -> int:
        """Axes before those of one example."""
        return self.y.dim()


def target_of(
    learner: MetaLearner,
    params: Params,
    episode: Episode,
    on: Part,
    *,
    steps: int | None = None,
    gradients: bool = True,
) -> Target:
    """The model that the support makes, as a function of what the attacker moves.

    On the query the adapted model is fixed. On the support the clean queries are judged by a model adapted to a moved
    support: gradients pass through the adaptation, through all inner steps (second order) or the prototypes. On both
    the support's examples come first, then the queries.

    Args:
        learner: that adapts.
        params: the model.
        episode: clean.
        on: what moves.
        steps: of adaptation; None: the learner's own.
        gradients: whether they are asked for; a black-box attack on the support needs none.

    Raises:
        ConfigurationError: gradients on the support of a learner that gives none.
    """
    support, query, ways = episode.support, episode.query, ways_of(episode)
    count = learner.default_steps if steps is None else steps
    if on == "query":
        adapted = learner.adapt(params, support, ways, count)
        return Target(lambda x: learner.predict(adapted, x), query.x, query.y)
    follow = differentiable(learner) if gradients else learner.trajectory

    def answers(moved: Tensor, queries: Tensor) -> Tensor:
        adapted = next(iter(follow(params, Batch(moved, support.y), ways, (count,))))
        return learner.predict(adapted, queries)

    if on == "support":
        return Target(lambda x: _each(lambda own: answers(own, query.x), x), support.x[None], query.y[None])
    shots = support.x.shape[0]
    both = torch.cat([support.x, query.x])[None]
    return Target(lambda x: _each(lambda own: answers(own[:shots], own[shots:]), x), both, query.y[None])


def _each(answer: Callable[[Tensor], Tensor], sets: Tensor) -> Tensor:
    """Answers to each set of examples, stacked; there is one unless somebody tries several."""
    return torch.stack([answer(own) for own in sets.unbind()])


def differentiable(learner: MetaLearner) -> Callable[..., Iterator[Any]]:
    """An adaptation, called as `trajectory`, through which gradients reach the support.

    Raises:
        ConfigurationError: the learner has none.
    """
    found = learner.trajectory if learner.head == "embedding" else getattr(learner, "unrolled", None)
    if found is None:
        raise ConfigurationError(_refusal(learner, "its inner steps are detached"))
    return found


def check_differentiable(learner: MetaLearner, params: Params, episode: Episode, steps: int | None = None) -> None:
    """Refuse a gradient attack on the support where the answers do not depend on it differentiably.

    Some learners take their inner gradients for constants (the LSTM meta-learner), and with no inner steps nothing of
    the support is seen: an attack would then call a model robust that it never touched.

    Raises:
        ConfigurationError: names the learner and the remedy.
    """
    target = target_of(learner, params, episode, "support", steps=steps)
    with torch.enable_grad():
        if not target.logits_of(target.x.detach().requires_grad_()).requires_grad:
            raise ConfigurationError(_refusal(learner, "what it adapts to is a constant to its gradients"))


def _refusal(learner: MetaLearner, reason: str) -> str:
    return (
        f"an attack on the support needs gradients through the adaptation, and learner "
        f"'{LEARNERS.name_of(learner)}' gives none: {reason}. "
        "Attack the query (--on query), use the black-box attack 'square', or a learner such as maml, anil, "
        "boil, imaml, metasgd, abml, protonet or matchingnet"
    )
