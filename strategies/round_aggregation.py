"""From a round's updates to one vector: a private release, a mean of sums, or what the defence makes of them."""

import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fedmeta.experiment import Experiment
from fedmeta.params import ParamSpec
from fedmeta.seeding import SERVER, torch_generator
from strategies import partial_sums
from strategies.aggregation import Aggregate, Probe, RoundContext, Rule
from strategies.defence import describe, describe_groups, make_defence, make_probe
from strategies.directory import Directory
from strategies.group_defence import GroupPromise, group_promise
from strategies.holdings import Holdings
from strategies.private_rounds import PrivateRounds
from strategies.replies import Sorted, Update
from strategies.root import RootTasks

AGGREGATOR = "aggregator/"
"""What names of the aggregator's memory begin with in a checkpoint."""


class RoundAggregation:
    """The aggregation that an experiment describes, with what it remembers from round to round.

    Args:
        experiment: validated, with the components of `strategies` checked.
        spec: of the flat vector.
        directory: the clients.
        expected: clients of a round.
        private: what privacy adds; None where the experiment has none.

    `defence` is the pipeline, `holdings` who holds which entries (None: all hold all), `promise` what the defence bears
    over groups under secure aggregation, and `memory` the rule's own state.
    """

    def __init__(
        self,
        experiment: Experiment,
        spec: ParamSpec,
        directory: Directory,
        expected: float,
        private: PrivateRounds | None,
    ) -> None:
        self.experiment, self.spec, self.private = experiment, spec, private
        self.defence = make_defence(experiment, expected)
        self.holdings = Holdings.of(spec, directory.role("train"))
        if self.holdings is not None:
            self.holdings.check(experiment, self.defence)
        self.promise: GroupPromise | None = group_promise(experiment, expected)
        self.memory: dict[str, Tensor] = {}
        if experiment.engine.reduce == "auto" and not self.sums:
            warnings.warn(
                "engine.reduce = 'auto' has no effect: the server needs every client's update under privacy, behind "
                "pre-aggregators, where clients train parts of the model, and for "
                f"server.aggregator = '{experiment.server.aggregator.name}'",
                stacklevel=3,
            )
        if self._root is not None:
            self._root.check()

    @cached_property
    def sums(self) -> bool:
        """Whether the experiment allows sums for updates and its pipeline needs no more."""
        server = self.experiment.server
        plain = server.aggregator.name == "mean" and not server.preaggregators and self.private is None
        plain = plain and not self.experiment.secagg.enabled and self.holdings is None
        return self.experiment.engine.reduce == "auto" and plain

    def __call__(self, server_round: int, found: Sorted, model: Tensor | None) -> Aggregate:
        """The aggregate of a round's accepted replies, `[D]`, with what the rule says of the clients.

        Args:
            server_round: from 1.
            found: the replies, sorted.
            model: `[D]`, which the round started from.

        Raises:
            NotEnoughUpdates: below a rule's bound.
        """
        if self.private is not None and self.private.central is not None:
            rows, share = found.matrix, None
            if self.holdings is not None:
                rows = self.holdings.masked(rows, [update.client for update in found.updates])
                share = self.holdings.share
            vector, facts = self.private.release(rows, server_round, share)
            return Aggregate(vector, diagnostics=facts)
        updates = found.updates
        if self.sums:
            carried = [update.carried for update in updates if update.carried is not None]
            own = [update.delta for update in updates]
            return Aggregate(partial_sums.mean(own, carried, self.weights(updates)))
        return self.judged(found.matrix, self.context(server_round, updates, model))

    def judged(self, rows: Tensor, context: RoundContext) -> Aggregate:
        """What the defence makes of updates `[n, D]`, each entry over those who hold it."""
        if self.holdings is not None:
            return self.holdings.aggregate(self.defence, rows, context)
        return self.defence(rows, context)

    def context(self, server_round: int, updates: list[Update], model: Tensor | None) -> RoundContext:
        """What the aggregator of a round may know beside the matrix of the updates; a fresh generator each time."""
        root = None if self._root is None or model is None else self._root.update(model, server_round)
        return RoundContext(
            round=server_round,
            clients=tuple(update.client for update in updates),
            weights=self.weights(updates),
            model=model,
            state=self.memory,
            generator=torch_generator(self.experiment.seed, server_round, SERVER, "aggregation"),
            spec=self.spec,
            probe=self._probe,
            root_update=root,
        )

    def weights(self, updates: list[Update]) -> Tensor:
        """`[n]`, what each update counts for in a mean."""
        if self.experiment.server.weighting == "tasks":
            return torch.tensor([update.tasks for update in updates], dtype=torch.float64)
        return torch.tensor([len(update.clients) for update in updates], dtype=torch.float64)

    def describe(self, aggregate: Aggregate, updates: list[Update]) -> dict[str, Any]:
        """What the rule says of clients, or of groups, for the round's record."""
        if self.experiment.secagg.enabled:
            return describe_groups(aggregate, len(updates))
        return describe(aggregate, [update.client for update in updates])

    def state(self) -> dict[str, Tensor]:
        """The rule's memory, as a checkpoint keeps it."""
        return {f"{AGGREGATOR}{key}": value for key, value in self.memory.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint; entries of others in it are left alone."""
        self.memory = {
            key.removeprefix(AGGREGATOR): value for key, value in state.items() if key.startswith(AGGREGATOR)
        }

    @cached_property
    def _probe(self) -> Probe | None:
        return make_probe(self.experiment) if self._needs("probe") else None

    @cached_property
    def _root(self) -> RootTasks | None:
        return RootTasks(self.experiment) if self._needs("root_update") else None

    def _needs(self, what: str) -> bool:
        rule = self.defence.aggregator
        return isinstance(rule, Rule) and what in rule.requires.context
