"""Matching networks (Vinyals et al. 2016), with and without full-context embeddings."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmeta.errors import ConfigurationError
from fedmeta.gradients import value_and_grad
from fedmeta.learners.base import Metrics, OuterLoss
from fedmeta.learners.draws import permutation, task_seed
from fedmeta.learners.functional import forward, part, query_loss, ways_of
from fedmeta.learners.lstm_cell import initial_cell, lstm_step
from fedmeta.models.initialise import initialise
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode, Task

CONTEXT, FORWARD, BACKWARD, ATTENTION = "context.", "context.forward.", "context.backward.", "context.attention."
"""Prefixes of the full-context cells among the meta-parameters."""
TEMPERATURE = "log_temperature"
ABSENT = 80.0
"""A class without support is e^-80 as likely as the least likely other one: its logarithm stays a number."""


class Memory(NamedTuple):
    """What a client keeps.

    Attributes:
        params: the meta-parameters.
        keys: `[n, features]`, embeddings g of the support.
        members: `[ways, n]`, whether an example is of a class; all are where the support was not seen.
    """

    params: Params
    keys: Tensor
    members: Tensor


@dataclass(frozen=True)
class MatchingNet:
    """Attention over the support (Vinyals et al. 2016, equation 1; appendix A for the full context).

    p(k | x, S) = sum over class k of a(x, x_i), a = softmax over i of temperature * cosine(f(x), g(x_i)); the logits
    are log p. The paper has no temperature; at 1 the softmax is nearly even and less is learnt (71 % against 88 %).
    With `full_context` g(x_i) adds to an embedding what a bidirectional LSTM makes of the support in its order, and
    f(x) is an LSTM of `processing_steps` steps that reads the support by attention. In training the order is drawn anew
    for every task; in use it is as given. There are no inner steps: before the support is seen all classes are equal.
    """

    serves: ClassVar[tuple[str, ...]] = ("classification",)
    head: ClassVar[Literal["ways", "embedding", "classes"]] = "embedding"

    model: nn.Module
    task: Task
    temperature: float = parameter(10.0, doc="of the cosine softmax; where learnt the first one", gt=0)
    learn_temperature: bool = parameter(False, doc="the logarithm of the temperature is a meta-parameter")
    full_context: bool = parameter(False, doc="embeddings that depend on the whole support")
    processing_steps: int = parameter(5, doc="attention steps of a full-context query", unit="steps", ge=1)

    def __post_init__(self) -> None:
        if self.full_context and self._features is None:
            raise ConfigurationError(
                "learner.full_context needs the size of the embedding, and the model does not tell it. Use model conv4 "
                "or mlp, or wrap yours: fedmeta.models.network.Network(body, None, features=64)"
            )

    def init(self, generator: torch.Generator) -> Params:
        """The embedding's own initialisation, then `log_temperature` and the three cells where there are such."""
        params = initialise(self.model, generator)
        if self.learn_temperature:
            params[TEMPERATURE] = torch.tensor(math.log(self.temperature))
        if self.full_context:
            size = self._features
            assert size is not None
            for prefix, hidden in ((FORWARD, size), (BACKWARD, size), (ATTENTION, 2 * size)):
                cell = initial_cell(size, hidden, size, generator)
                params |= {prefix + name: value for name, value in cell.items()}
        return params

    def trajectory(self, params: Params, support: Batch, ways: int, steps: Sequence[int]) -> Iterator[Memory]:
        """The support unseen for 0 steps, remembered for any other number."""
        memory = self._remember(params, support.x, support.y, ways)
        for count in steps:
            yield memory if count else memory._replace(members=torch.ones_like(memory.members))

    unrolled = trajectory
    """Nothing is detached: a gradient passes through the memory to `params`."""

    def adapt(self, params: Params, support: Batch, ways: int, steps: int | None = None) -> Memory:
        """The support's embeddings."""
        return next(self.trajectory(params, support, ways, (self.default_steps if steps is None else steps,)))

    def predict(self, adapted: Memory, x: Tensor) -> Tensor:
        """Logarithms `[n, ways]` of class probabilities; no query's depend on another's."""
        params, keys, members = adapted
        queries = self._embed(params, x)
        if self.full_context:
            queries = _attend(part(params, ATTENTION), queries, keys, self.processing_steps)
        temperature = params[TEMPERATURE].exp() if self.learn_temperature else self.temperature
        cosine = F.normalize(queries, dim=-1) @ F.normalize(keys, dim=-1).transpose(-1, -2)
        attention = (temperature * cosine).log_softmax(dim=-1)
        floor = attention.detach().amin(dim=-1, keepdim=True) - ABSENT
        # [n, ways, support]: each class sums over its own.
        own = torch.where(members, attention.unsqueeze(-2), floor.unsqueeze(-2))
        return own.logsumexp(dim=-1)

    def meta_gradient(self, params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """d/dtheta of the query's cross-entropy, through queries and memory."""
        return self.query_gradient(params, episode, query_loss)

    def query_gradient(self, params: Params, episode: Episode, outer: OuterLoss) -> tuple[Params, Metrics]:
        """As `meta_gradient`, of another outer loss."""
        support = episode.support
        if self.full_context:
            order = permutation(task_seed(support.x), 0, support.y.shape[0])
            support = Batch(support.x[order], support.y[order])

        def objective(theta: Params) -> tuple[Tensor, Metrics]:
            memory = self._remember(theta, support.x, support.y, ways_of(episode))
            return outer(self, memory, episode.query)

        grads, _, metrics = value_and_grad(objective, params)
        return grads, metrics

    @property
    def training_steps(self) -> int:
        """1, the support seen."""
        return 1

    @property
    def default_steps(self) -> int:
        """Steps in use: 1, the support seen."""
        return 1

    @property
    def _features(self) -> int | None:
        return getattr(self.model, "features", None)

    def _embed(self, params: Params, x: Tensor) -> Tensor:
        own = {name: value for name, value in params.items() if name != TEMPERATURE and not name.startswith(CONTEXT)}
        return forward(self.model, own, x)

    def _remember(self, params: Params, x: Tensor, y: Tensor, ways: int) -> Memory:
        keys = self._embed(params, x)
        if self.full_context:
            ahead = _sweep(part(params, FORWARD), keys)
            back = _sweep(part(params, BACKWARD), keys.flip(0)).flip(0)
            keys = ahead + back + keys
        return Memory(params, keys, y == torch.arange(ways, device=y.device).unsqueeze(-1))


def _sweep(weights: Params, z: Tensor) -> Tensor:
    """Hidden states `[n, features]` of an LSTM that reads `[n, features]` row by row."""
    hidden = cell = torch.zeros_like(z[:1])
    states = []
    for index in range(z.shape[0]):
        hidden, cell = lstm_step(weights, z[index : index + 1], hidden, cell)
        states.append(hidden)
    return torch.cat(states)


def _attend(weights: Params, queries: Tensor, keys: Tensor, steps: int) -> Tensor:
    """Each query's hidden state after `steps` steps of reading the keys (equations 3 to 6 of the appendix).

    h_k = LSTM(f', [h_{k-1}, r_{k-1}], c_{k-1}) + f'; r_k is the mean of keys by softmax(h_k . key).
    """
    hidden, cell = torch.zeros_like(queries), torch.zeros_like(queries)
    read = torch.zeros_like(queries)
    for _ in range(steps):
        hidden, cell = lstm_step(weights, queries, torch.cat([hidden, read], dim=-1), cell)
        hidden = hidden + queries
        read = (hidden @ keys.transpose(-1, -2)).softmax(dim=-1) @ keys
    return hidden
