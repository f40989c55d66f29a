"""A network as a function of its parameters, whole or in its two parts."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedmeta.errors import ConfigurationError
from fedmeta.learners.base import Adapted, MetaLearner, Metrics
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode, Task


def forward(model: nn.Module, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Outputs of the whole network with `params` in place of its own: `[n, *input_shape]` to `[n, outputs]`."""
    return functional_call(model, dict(params), (x,))


def features(model: nn.Module, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """What enters the head: `[n, *input_shape]` to `[n, features]`."""
    return functional_call(model.body, part(params, "body."), (x,))  # type: ignore[arg-type]


def embed(learner: MetaLearner, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Embeddings `[n, features]` under a learner: the network's own outputs (ProtoNet), or what enters its head."""
    return forward(learner.model, params, x) if learner.head == "embedding" else features(learner.model, params, x)


def outputs(params: Mapping[str, Tensor], z: Tensor) -> Tensor:
    """The linear head applied to features `[n, features]`; gives `[n, outputs]`."""
    product = z @ params["head.weight"].transpose(-1, -2)
    return product + params["head.bias"] if "head.bias" in params else product


def part(params: Mapping[str, Tensor], prefix: str) -> Params:
    """The entries of one submodule, by their names within it."""
    return {name[len(prefix) :]: value for name, value in params.items() if name.startswith(prefix)}


def require_head(model: nn.Module, learner: str) -> None:
    """Check that the network is a `body` and a linear `head`.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(getattr(model, "body", None), nn.Module) or not isinstance(
        getattr(model, "head", None), nn.Linear
    ):
        raise ConfigurationError(
            f"learner '{learner}' treats the last layer apart, and the model has no linear submodule `head` after "
            "a submodule `body`. Give the model `ways`, or wrap it: "
            "fedmeta.models.network.Network(body, nn.Linear(features, ways))"
        )


def joined(episode: Episode) -> Batch:
    """Support and query as one batch, the support first."""
    support, query = episode.support, episode.query
    return Batch(torch.cat([support.x, query.x]), torch.cat([support.y, query.y]))


def ways_of(episode: Episode) -> int:
    """Class slots of an episode; 1 where there are no classes."""
    return max(1, episode.classes.shape[-1])


def query_loss(learner: MetaLearner, adapted: Adapted, query: Batch) -> tuple[Tensor, Metrics]:
    """The outer loss of meta-learning: the query's, with its metrics."""
    return measure(learner.task, learner.predict(adapted, query.x), query.y)


def measure(task: Task, output: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
    """The loss, and the metrics of a task by name: `loss` and the task's score."""
    loss = task.loss(output, y)
    return loss, {"loss": loss, task.score_name: task.score(output, y)}
