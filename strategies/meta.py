"""MetaStrategy: federated meta-learning rounds on Flower's message API.

One round: sample clients, send the flat initialisation, sort the replies into an update matrix `[n, D]`, aggregate,
and let the server's optimiser move the model along the aggregated pseudo-gradient (Reddi et al. 2021, algorithm 1).
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.optimisers import OPTIMISERS, schedule
from fedmeta.params import ParamSpec
from fedmeta.privacy.secagg_settings import least_clients
from fedmeta.seeding import SERVER, numpy_generator
from fedmeta.wire import ARRAYS, CONFIG, LAST_UPDATE, config_record, metric_record, read_vector, vector_record
from strategies import SAMPLERS, partial_sums
from strategies.adversary import Adversary
from strategies.aggregation import Aggregate, NotEnoughUpdates
from strategies.configurations import STATE, Configurations
from strategies.directory import Directory, by_message
from strategies.private_rounds import CLIP_NORM, PrivateRounds
from strategies.replies import Sorted, Update, sort_replies
from strategies.round_aggregation import AGGREGATOR, RoundAggregation
from strategies.round_report import RoundReport, client_metrics, mean_norm
from strategies.row_store import RowStore
from strategies.validation import Validation

TRAIN = "train"


class MetaStrategy(Strategy):
    """Federated meta-learning as an experiment describes it.

    Args:
        experiment: validated, with the components of `strategies` checked.
        spec: the model's `ParamSpec`; the flat vector holds its shared entries.
        directory: the clients.
        private: what privacy adds; None where the experiment has none.
        told: the experiment as clients are told it; None: whole.

    State that lasts: `optimiser_state`, and what `aggregation`, `private`, `adversary` and `configurations` remember.

    `report` tells of the last round, `validation` of the last evaluation.
    """

    def __init__(
        self,
        experiment: Experiment,
        spec: ParamSpec,
        directory: Directory,
        private: PrivateRounds | None = None,
        told: Experiment | None = None,
    ) -> None:
        server = experiment.server
        self._told = (experiment if told is None else told).to_json()
        self.experiment, self.spec, self.directory = experiment, spec, directory
        self.sampler = SAMPLERS.make(server.sampling.name, **server.sampling.parameters)
        expected = self.sampler.expected(len(directory.role("train")))
        self.aggregation = RoundAggregation(experiment, spec, directory, expected, private)
        self.validation = Validation(experiment, directory)
        self.optimiser = OPTIMISERS.make(server.optimiser.name, **server.optimiser.parameters)
        self.optimiser_state: dict[str, Tensor] = self.optimiser.init(torch.zeros(spec.size()))
        self.report: RoundReport | None = None
        self._rows = RowStore()
        self._sampled: list[int] = []
        self._asked: dict[int, Message] = {}
        self._asked_for_sums = False
        self._vector: Tensor | None = None
        self.private = private
        self.configurations = Configurations(experiment)
        self.adversary = Adversary(experiment, (member.client for member in directory.role("train")))
        self.sampler.check(len(directory.role("train")))
        if private is None and experiment.privacy.unit != "none":
            raise ConfigurationError("the experiment asks for privacy: give the strategy its PrivateRounds")

    def base_config(self, server_round: int) -> dict[str, Any]:
        """What every message to a client carries: the experiment, and how to read the model and answer."""
        return {
            "experiment": self._told,
            "experiment-hash": self.experiment.hash,
            "spec-hash": self.spec.hash,
            "round": server_round,
            "update-form": "delta",
            **self.configurations.settled(),
        }

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample clients by the seed and the round, and address one shared content to each."""
        rng = numpy_generator(self.experiment.seed, server_round, SERVER, "sampling")
        population = [member.client for member in self.directory.role("train")]
        if self.private is not None:
            population, rng = self.private.available(population), self.private.generator(server_round)
        self._sampled = self.sampler.draw(population, rng)
        if self.private is not None:
            self.private.reserve(server_round, self._sampled)
        self._vector = read_vector(arrays, self.spec.size())
        told = {**config, **self.base_config(server_round), **self.adversary.told(server_round, self._sampled)}
        told |= self.configurations.told()
        self._asked_for_sums = self.aggregation.sums and getattr(grid, "adds_updates", False)
        if self._asked_for_sums:
            told[partial_sums.REDUCE] = self.experiment.server.weighting
        content = RecordDict({ARRAYS: arrays, CONFIG: config_record(told)})
        contents = self.adversary.contents(content, server_round, self._sampled)
        nodes = {client: node for node, client in self.directory.nodes(self._sampled).items()}
        # Kept, since their ids, by which replies are matched, appear when they are sent.
        self._asked = {client: Message(contents[client], nodes[client], TRAIN) for client in self._sampled}
        return list(self._asked.values())

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate the accepted replies; the model stays as it was where the round gives nothing to aggregate."""
        answers = by_message(self._asked.values(), replies)
        by_client = {client: answers.get(message.metadata.message_id) for client, message in self._asked.items()}
        asked = {message.metadata.message_id: client for client, message in self._asked.items()}
        groups = asked if self.experiment.secagg.enabled else None
        found = sort_replies(
            by_client,
            self.spec.size(),
            self.spec.hash,
            sums=self._asked_for_sums,
            groups=groups,
            store=self._rows,
        )
        event = self._why_not(found)
        failed_round = self._below_quorum(found) and not self._too_few_to_hide
        metrics = client_metrics(found.updates) | self.configurations.learn(server_round, found)
        if self.private is not None:
            epsilon = self.private.account.quick_epsilon()
            metrics |= {"epsilon-rdp": epsilon} if epsilon is not None and math.isfinite(epsilon) else {}
        arrays, defence = None, {}
        if event is None:
            try:
                aggregate = self._aggregate(server_round, found)
            except NotEnoughUpdates as error:  # a small draw is ordinary; clients that did not answer are not
                event, failed_round = str(error), found.answered < len(self._sampled)
            else:
                event, defence = aggregate.event, self.aggregation.describe(aggregate, found.updates)
                self.aggregation.memory = dict(aggregate.state)
        if event is None:
            vector, state, facts = self._next(server_round, aggregate, found.updates)
            if all(torch.isfinite(tensor).all() for tensor in (vector, *state.values())):
                arrays, self.optimiser_state = vector_record(vector), state
                assert self._vector is not None
                self.adversary.saw(self._vector, vector)
            else:
                event = "the server's step gave NaN or infinite values: lower server.optimiser.lr"
                failed_round = True
            metrics |= facts
        if self.private is not None:
            self.private.confirm()
        self.report = RoundReport(
            round=server_round,
            sampled=tuple(self._sampled),
            metrics=metrics,
            failed=found.failed,
            refused=found.refused,
            event=event,
            failed_round=failed_round,
            defence=defence,
            attackers=self.adversary.attackers(server_round, self._sampled),
            idle={client: why for update in found.updates for client, why in update.idle.items()},
            groups=[
                {"clients": list(update.group), "clipped": update.clipped} for update in found.updates if update.group
            ],
        )
        return arrays, metric_record(metrics)

    @property
    def _too_few_to_hide(self) -> bool:
        """Whether secure aggregation has no sum of this draw, which is as ordinary as an empty one."""
        return self.experiment.secagg.enabled and len(self._sampled) < least_clients(self.experiment)

    def _below_quorum(self, found: Sorted) -> bool:
        needed = self.experiment.server.min_success_fraction * len(self._sampled)
        return bool(self._sampled) and (not found.updates or found.answered < needed)

    def exhausted(self) -> str | None:
        """Why no further round may be played, since the privacy budget is spent; None where one may."""
        if self.private is None:
            return None
        population = [member.client for member in self.directory.role("train")]
        left = self.private.available(population)
        try:
            self.sampler.check(len(left))
        except ConfigurationError:
            budget = self.experiment.privacy.budget
            whose = f": {len(left)} of {len(population)} clients may go on" if left else ""
            return f"another round would exceed the privacy budget, epsilon {budget:g}{whose}"
        return None

    def _why_not(self, found: Sorted) -> str | None:
        if self.private is not None and self.private.central is not None:
            return None  # whoever came: keeping the model would tell, and the accounting counts the release
        if not self._sampled:
            return "no client was sampled"
        if self._too_few_to_hide:
            return f"{len(self._sampled)} clients were drawn: secure aggregation has no sum of so few"
        if self._below_quorum(found):
            return (
                f"{found.answered} of {len(self._sampled)} clients gave a valid update, "
                f"below server.min_success_fraction = {self.experiment.server.min_success_fraction:g}"
            )
        if not self.aggregation.weights(found.updates).sum() > 0:
            return "the weights of the updates sum to zero"
        return None

    def _aggregate(self, server_round: int, found: Sorted) -> Aggregate:
        return self.aggregation(server_round, found, self._vector)

    def _next(
        self, server_round: int, aggregate: Aggregate, updates: list[Update]
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, float]]:
        """The next model, the optimiser's state with it, and facts for the metrics."""
        assert self._vector is not None
        server = self.experiment.server
        scale = schedule(server.schedule, server.progress(server_round))
        # The update is a pseudo-gradient: what the optimiser descends is its negative.
        state, change = self.optimiser.step(self.optimiser_state, -aggregate.vector, scale=scale)
        facts = {"update-norm": float(aggregate.vector.norm())}
        if self.private is None or self.private.central is None:  # what is not noised is not told
            facts["group-update-norm" if self.experiment.secagg.enabled else partial_sums.NORM] = mean_norm(updates)
        numbers = {key: float(value) for key, value in aggregate.diagnostics.items() if isinstance(value, (int, float))}
        return self._vector + change, state, {**facts, **numbers}

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the validation clients, on their frozen episodes; nobody where there are none."""
        base = {**config, **self.base_config(server_round)}
        return self.validation.messages(arrays, base)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Summarise the validation clients' scores."""
        found = self.validation.summarise(replies)
        if found is None:
            return None
        return metric_record({"loss": found.loss_after.mean, found.score_name: found.after.mean})

    def summary(self) -> None:
        """Log the strategy's settings, as Flower's own strategies do."""
        from logging import INFO

        from flwr.common.logger import log

        server = self.experiment.server
        log(
            INFO,
            "MetaStrategy: %s, %s sampling, %s server optimiser",
            server.aggregator.name,
            server.sampling.name,
            server.optimiser.name,
        )

    def state(self) -> dict[str, Tensor]:
        """The state to checkpoint beside the model."""
        return {
            **self.optimiser_state,
            **self.aggregation.state(),
            **(self.private.state() if self.private is not None else {}),
            **self.adversary.state(),
            **self.configurations.state(),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        self.optimiser_state = {
            key: value
            for key, value in state.items()
            if key not in (CLIP_NORM, LAST_UPDATE, STATE) and not key.startswith(AGGREGATOR)
        }
        self.adversary.load_state(state)
        self.configurations.load_state(state)
        self.aggregation.load_state(state)
        if self.private is not None:
            self.private.load_state(dict(state))


def vector_hash(vector: Tensor) -> str:
    """SHA-256 of a model's bytes: equal for bitwise equal models."""
    return hashlib.sha256(vector.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
