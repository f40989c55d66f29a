"""MetaStrategy: federated meta-learning rounds on Flower's message API.

One round: sample clients, send the flat initialisation, sort the replies into an update matrix `[n, D]`, aggregate,
and let the server's optimiser move the model along the aggregated pseudo-gradient (Reddi et al. 2021, algorithm 1).
"""

import hashlib
import math
import warnings
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fedmeta.attacks.success import AttackSuccess
from fedmeta.attacks.threat import describe_attack, success_steps
from fedmeta.errors import ConfigurationError
from fedmeta.experiment import OPTIMISERS, Experiment
from fedmeta.optimisers import schedule
from fedmeta.params import ParamSpec
from fedmeta.privacy.secagg_settings import least_clients
from fedmeta.seeding import SERVER, numpy_generator, torch_generator
from fedmeta.statistics import Evaluation
from fedmeta.wire import ARRAYS, CONFIG, LAST_UPDATE, config_record, metric_record, read_vector, vector_record
from strategies import SAMPLERS, partial_sums
from strategies.adversary import Adversary
from strategies.aggregation import Aggregate, NotEnoughUpdates, Probe, RoundContext, Rule
from strategies.configurations import STATE, Configurations
from strategies.defence import describe, describe_groups, make_defence, make_probe
from strategies.directory import Directory, by_message
from strategies.group_defence import GroupPromise, group_promise
from strategies.holdings import Holdings
from strategies.judging import Judging
from strategies.private_rounds import CLIP_NORM, PrivateRounds
from strategies.replies import Sorted, Update, sort_replies
from strategies.root import RootTasks
from strategies.round_report import RoundReport, client_metrics, mean_norm
from strategies.row_store import RowStore

TRAIN = "train"
AGGREGATOR = "aggregator/"
"""What names of the aggregator's state begin with in a checkpoint."""


class MetaStrategy(Strategy):
    """Federated meta-learning as an experiment describes it.

    Args:
        experiment: validated, with the components of `strategies` checked.
        spec: the model's `ParamSpec`; the flat vector holds its shared entries.
        directory: the clients.
        private: what privacy adds; None where the experiment has none.
        told: the experiment as clients are told it; None: whole.

    State that lasts: `optimiser_state`, the aggregator's `aggregator_state`, and those of `private` and
    `adversary`.

    `report`, `evaluation` and `success` tell of the last round, the last evaluation, and the attack's success in it;
    `promise` of what the defence bears over groups, under secure aggregation. `clean`, `[D]`, is a model that nobody
    attacked, set where there is one, for the lift of that success.
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
        self.defence = make_defence(experiment, expected)
        self.holdings = Holdings.of(spec, directory.role("train"))
        if self.holdings is not None:
            self.holdings.check(experiment, self.defence)
        self.promise: GroupPromise | None = group_promise(experiment, expected)
        self.aggregator_state: dict[str, Tensor] = {}
        self.optimiser = OPTIMISERS.make(server.optimiser.name, **server.optimiser.parameters)
        self.optimiser_state: dict[str, Tensor] = self.optimiser.init(torch.zeros(spec.size()))
        self.report: RoundReport | None = None
        self.evaluation: Evaluation | None = None
        self.evaluation_failed: dict[int, str] = {}
        self.success: AttackSuccess | None = None
        self._rows = RowStore()
        self.clean: Tensor | None = None
        self._sampled: list[int] = []
        self._asked: dict[int, Message] = {}
        self._asked_for_sums = False
        self._judging: list[Message] = []
        self._vector: Tensor | None = None
        self.private = private
        self.configurations = Configurations(experiment)
        self.adversary = Adversary(experiment, (member.client for member in directory.role("train")))
        self.sampler.check(len(directory.role("train")))
        if experiment.engine.reduce == "auto" and not self.sums:
            warnings.warn(
                "engine.reduce = 'auto' has no effect: the server needs every client's update under privacy, behind "
                "pre-aggregators, where clients train parts of the model, and for "
                f"server.aggregator = '{server.aggregator.name}'",
                stacklevel=2,
            )
        if self._root is not None:
            self._root.check()
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
        self._asked_for_sums = self.sums and getattr(grid, "adds_updates", False)
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
                event, defence = aggregate.event, self._describe(aggregate, found.updates)
                self.aggregator_state = dict(aggregate.state)
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

    def _describe(self, aggregate: Aggregate, updates: list[Update]) -> dict[str, Any]:
        if self.experiment.secagg.enabled:
            return describe_groups(aggregate, len(updates))
        return describe(aggregate, [update.client for update in updates])

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
        if not self.weights(found.updates).sum() > 0:
            return "the weights of the updates sum to zero"
        return None

    def weights(self, updates: list[Update]) -> Tensor:
        """`[n]`, what each update counts for in a mean."""
        if self.experiment.server.weighting == "tasks":
            return torch.tensor([update.tasks for update in updates], dtype=torch.float64)
        return torch.tensor([len(update.clients) for update in updates], dtype=torch.float64)

    def _aggregate(self, server_round: int, found: Sorted) -> Aggregate:
        """A private release of the updates, or what the defence makes of them, told all that a rule may know."""
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
        return self.judged(found.matrix, self.context(server_round, updates))

    def judged(self, rows: Tensor, context: RoundContext) -> Aggregate:
        """What the defence makes of updates `[n, D]`, each entry over those who hold it."""
        if self.holdings is not None:
            return self.holdings.aggregate(self.defence, rows, context)
        return self.defence(rows, context)

    def context(self, server_round: int, updates: list[Update]) -> RoundContext:
        """What the aggregator of a round may know beside the matrix of the updates; a fresh generator each time."""
        return RoundContext(
            round=server_round,
            clients=tuple(update.client for update in updates),
            weights=self.weights(updates),
            model=self._vector,
            state=self.aggregator_state,
            generator=torch_generator(self.experiment.seed, server_round, SERVER, "aggregation"),
            spec=self.spec,
            probe=self._probe,
            root_update=self._root_update(server_round),
        )

    @cached_property
    def sums(self) -> bool:
        """Whether the experiment allows sums for updates and its pipeline needs no more."""
        server = self.experiment.server
        plain = server.aggregator.name == "mean" and not server.preaggregators and self.private is None
        plain = plain and not self.experiment.secagg.enabled and self.holdings is None
        return self.experiment.engine.reduce == "auto" and plain

    @cached_property
    def _probe(self) -> Probe | None:
        rule = self.defence.aggregator
        needed = isinstance(rule, Rule) and "probe" in rule.requires.context
        return make_probe(self.experiment) if needed else None

    def _root_update(self, server_round: int) -> Tensor | None:
        return None if self._root is None or self._vector is None else self._root.update(self._vector, server_round)

    @cached_property
    def _root(self) -> RootTasks | None:
        rule = self.defence.aggregator
        needed = isinstance(rule, Rule) and "root_update" in rule.requires.context
        return RootTasks(self.experiment) if needed else None

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
        judging = self._validation()
        beside = vector_record(self.clean) if self.clean is not None and judging.success_steps else None
        self._judging = judging.messages(self.directory, arrays, base, beside)
        return self._judging

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Summarise the validation clients' scores."""
        judging, answers = self._validation(), list(replies)
        self.evaluation, self.evaluation_failed = judging.summarise(self.directory, self._judging, answers)
        if judging.success_steps:
            protocol = describe_attack(self.experiment)
            self.success, silent = judging.success(self.directory, self._judging, answers, protocol)
            self.evaluation_failed = {**silent, **self.evaluation_failed}
        if self.evaluation is None:
            return None
        return metric_record(
            {"loss": self.evaluation.loss_after.mean, self.evaluation.score_name: self.evaluation.after.mean}
        )

    def _validation(self) -> Judging:
        episodes = self.experiment.evaluation.validation_episodes
        return Judging("validation", episodes, success_steps=success_steps(self.experiment))

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
            **{f"{AGGREGATOR}{key}": value for key, value in self.aggregator_state.items()},
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
        self.aggregator_state = {
            key.removeprefix(AGGREGATOR): value for key, value in state.items() if key.startswith(AGGREGATOR)
        }
        if self.private is not None:
            self.private.load_state(dict(state))


def vector_hash(vector: Tensor) -> str:
    """SHA-256 of a model's bytes: equal for bitwise equal models."""
    return hashlib.sha256(vector.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
