"""A chain of pre-aggregators with an aggregator at its end, as one rule over clients."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from strategies import AGGREGATORS, PREAGGREGATORS
from strategies.aggregation import Aggregate, Aggregator, NotEnoughUpdates, RoundContext, Rule
from strategies.preaggregation import PreAggregator
from strategies.rows import Mixing, Rows

Component = tuple[str, Mapping[str, Any]]
"""A registered name and its parameters."""


@dataclass(frozen=True)
class Pipeline(Rule):
    """`preaggregators` in order, then `aggregator`; what comes back speaks of the clients' own rows.

    Distances are computed once for the whole chain: those between mixtures follow from those between rows.
    """

    preaggregators: tuple[PreAggregator, ...]
    aggregator: Aggregator

    @classmethod
    def make(cls, preaggregators: Sequence[Component], aggregator: Component) -> "Pipeline":
        """From names and parameters.

        Raises:
            ConfigurationError: an unknown name or parameter, or a rule that follows clients behind one that mixes them.
        """
        made = tuple(
            PREAGGREGATORS.make(name, where=f"server.preaggregators.{name}", **given) for name, given in preaggregators
        )
        name, given = aggregator
        rule = AGGREGATORS.make(name, where="server.aggregator", **given)
        for before in made:
            if isinstance(rule, Rule) and rule.requires.history and not before.keeps_clients:
                raise ConfigurationError(
                    f"server.aggregator = '{name}' follows every client over the rounds, but '{before.name}' before it "
                    "mixes clients into buckets: remove one of them"
                )
        return cls(made, rule)

    @classmethod
    def of(cls, experiment: Experiment) -> "Pipeline":
        """The pre-aggregators and the aggregator of an experiment, as it gives them.

        Raises:
            ConfigurationError: as `make`.
        """
        server = experiment.server
        return cls.make(
            [(component.name, component.parameters) for component in server.preaggregators],
            (server.aggregator.name, server.aggregator.parameters),
        )

    def check_rows(self, n: int) -> None:
        """Refuse n rows that are too few for any part of the chain.

        Raises:
            NotEnoughUpdates: names the part, its bound and what to do.
        """
        left, story = n, ""
        for part in (*self.preaggregators, self.aggregator):
            if isinstance(part, PreAggregator | Rule):
                try:
                    part.check_rows(left)
                except NotEnoughUpdates as error:
                    raise NotEnoughUpdates(f"{error}{story}") from None
            if isinstance(part, PreAggregator) and part.rows_after(left) != left:
                story = f" ({part.name} leaves {part.rows_after(left)} of {left} updates; smaller buckets leave more)"
                left = part.rows_after(left)

    def aggregate(self, rows: Rows, context: RoundContext) -> Aggregate:
        """Mix, aggregate, and translate weights, scores and flags back to the rows that came."""
        shares: Tensor | None = None
        speaker = torch.arange(rows.n)
        for part in self.preaggregators:
            mixing = part.mixing(rows, context)
            rows = rows.mixed(mixing)
            shares = mixing.weights if shares is None else mixing.weights @ shares
            speaker = mixing.speaker[speaker]
            context = _mixed_context(context, mixing)
        rule = self.aggregator
        found = rule(rows, context) if isinstance(rule, Rule) else rule(rows.matrix, context)
        if shares is None:
            return found
        return dataclasses.replace(
            found,
            weights=None if found.weights is None else found.weights.to(torch.float64) @ shares,
            scores=None if found.scores is None else found.scores[speaker],
            flagged=None if found.flagged is None else found.flagged[speaker],
        )


def _mixed_context(context: RoundContext, mixing: Mixing) -> RoundContext:
    """A bucket weighs what its clients do, and is no client."""
    if mixing.keeps_clients:
        return context
    weights = context.weights
    if weights is not None:
        weights = torch.zeros(len(mixing.weights), dtype=weights.dtype).index_add_(0, mixing.speaker, weights)
    return dataclasses.replace(context, clients=(), weights=weights)
