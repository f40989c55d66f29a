"""SecureAggregationGrid: any strategy gets one reply for each group of clients, and no one sees a single update."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from fedmeta.errors import ConfigurationError, DataError, FedmetaError
from fedmeta.experiment import SecaggSection
from fedmeta.privacy import secagg_names as names
from fedmeta.privacy.noise import system_generator
from fedmeta.privacy.protected_vector import GroupMean, Layout
from fedmeta.privacy.secagg import Aborted, FixedPoint, GroupContext, ServerSession
from fedmeta.privacy.secagg_settings import LEAST_CLIENTS, group_plan
from fedmeta.seeding import SERVER, numpy_generator
from fedmeta.wire import (
    ARRAYS,
    CLIPPED_SHARE,
    CONFIG,
    GROUP,
    IDLE,
    METRICS,
    WEIGHT,
    metric_record,
    read_vector,
    vector_record,
)
from strategies.checking import UNKNOWN
from strategies.decorator import GridDecorator, round_of
from strategies.message_ids import give_id
from strategies.secagg_groups import partition
from strategies.secagg_round import STAGES, Exchanges, Group

log = logging.getLogger("fedmeta.secagg")


class SecureAggregationGrid(GridDecorator):
    """A Grid that hands a strategy one reply for each group of clients: their mean, and no client's own update.

    `FedAvg().start(grid=SecureAggregationGrid(grid, SecaggSection(group_size=5)), ...)`, with our ClientApp on the
    nodes. Every round the train messages are thrown into groups at random; each group runs the four exchanges of
    SecAgg+ over the inner grid, and its sum is what this process learns. The reply of a group answers the train message
    of one of its members: the mean update (added to the model that was sent, where the strategy takes models), the
    means of the metrics, the sum of weights as `num-examples`, and in its ConfigRecord whose mean it is. Other members
    that are in the mean have no reply of their own; those that are not have an error reply with the reason.

    Other messages pass as they are: evaluations are not masked.

    Args:
        grid: any grid whose nodes run our ClientApp.
        settings: group size, bounds, and what is assumed of the clients; see `[secagg]` of an experiment.
        weighting: `tasks` means by `num-examples`, as Flower's strategies do; `uniform` counts every client once.
        min_success_fraction: below this share of the clients in sums a round has none.
        seed: of groups, graphs and simulated dropouts, where no one's data are real; None: the system's generator.
        trusted: public identities whose signature every client's keys need (`secagg.identities.public_bytes`).

    Raises:
        ConfigurationError: a grid that rewrites replies, or settings that no group can have.
    """

    in_clear = False

    def __init__(
        self,
        grid: Grid,
        settings: SecaggSection = SecaggSection(),
        *,
        weighting: Literal["tasks", "uniform"] = "tasks",
        min_success_fraction: float = 0.5,
        seed: int | None = None,
        trusted: frozenset[bytes] | None = None,
    ) -> None:
        super().__init__(grid)
        if getattr(grid, "rewrites_replies", False):
            raise ConfigurationError(
                "an attacker who rewrites replies cannot act under secure aggregation, where they are masked: use "
                "attack.knowledge = 'own' or 'colluding', which act within the clients"
            )
        self.settings, self.weighting, self.seed = settings, weighting, seed
        self._min_success_fraction, self._trusted = min_success_fraction, trusted
        # Keys hold in one run and round only. A resumed run is another one to its clients.
        self._run_name = system_generator().bytes(16).hex()
        self._turns = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Passed on, but for train messages: their replies would come unmasked.

        Raises:
            FedmetaError: a train message.
        """
        pushed = list(messages)
        if any(_is_train(message) for message in pushed):
            raise FedmetaError(
                "train messages cannot be pushed under secure aggregation, which takes four exchanges: use "
                "send_and_receive"
            )
        return super().push_messages(pushed)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send, wait, and return one reply for each group of train messages, and one for each other message."""
        sent = list(messages)
        others = [message for message in sent if not _is_train(message)]
        training = [message for message in sent if _is_train(message)]
        replies = list(self._grid.send_and_receive(others, timeout=timeout)) if others else []
        return [*replies, *self._train(training, timeout)] if training else replies

    def _train(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        """The replies to a round's train messages."""
        self._turns += 1
        round = round_of(messages[0], self._turns)
        for message in messages:
            give_id(message)
        groups, refused = self._groups(messages, round)
        limits = [limit for limit in (timeout, self.settings.seconds) if limit is not None]
        exchanges = Exchanges(
            self._grid, groups, self._training_record, min(limits, default=None), self._silence(round)
        )
        for stage in STAGES:
            if stage == "unmask":
                self._check_quorum(groups, len(messages))
            exchanges.play(stage)
        return [*refused, *self._replies(groups, len(messages), round)]

    def _groups(self, messages: Sequence[Message], round: int) -> tuple[list[Group], list[Message]]:
        """The groups of a round, and error replies of those whose group cannot be."""
        by_node = {message.metadata.dst_node_id: message for message in messages}
        if len(by_node) != len(messages):
            raise FedmetaError(
                "two train messages went to one node: under secure aggregation it can be in one sum only"
            )
        rng = self._generator(round, "secagg groups")
        groups, refused = [], []
        for index, nodes in enumerate(partition(sorted(by_node), self.settings.group_size, rng)):
            members = {node: by_node[node] for node in nodes}
            try:
                groups.append(self._group(index, members, round))
            except ConfigurationError as error:
                refused += [_error(message, str(error)) for message in members.values()]
        return groups, refused

    def _group(self, index: int, members: dict[int, Message], round: int) -> Group:
        settings = self.settings
        if len(members) < LEAST_CLIENTS and not settings.allow_unsafe_groups:
            raise ConfigurationError(
                f"a group of {len(members)} clients, fewer than {LEAST_CLIENTS}, hides too little: sample more "
                "clients, or set secagg.allow_unsafe_groups = true"
            )
        session = ServerSession(
            GroupContext(self._run_name, self._turns, index, tuple(members)),
            group_plan(settings, len(members)),
            bits=settings.bits,
            length=self._layout(members, 1.0).length,
            generator=self._generator(round, f"secagg graph/{index}"),
            trusted=self._trusted,
        )
        return Group(session, members, FixedPoint(settings.bits, settings.bound, len(members)))

    def _layout(self, members: Mapping[int, Message], weight_bound: float) -> Layout:
        settings = self.settings
        return Layout(
            size=_model_size(next(iter(members.values()))),
            bound=settings.bound,
            metric_bound=settings.metric_bound,
            weight_bound=weight_bound,
            weighted=self.weighting == "tasks",
        )

    def _training_record(self, group: Group) -> dict[str, Any]:
        """What a train message says of layout and encoding."""
        settings = self.settings
        found: dict[str, Any] = {
            names.BITS: settings.bits,
            names.BOUND: settings.bound,
            names.COUNT: len(group.messages),
            names.METRIC_BOUND: settings.metric_bound,
            names.WEIGHTED: self.weighting == "tasks",
        }
        if settings.weight_bound is not None:
            found[names.WEIGHT_BOUND] = settings.weight_bound
        return found

    def _generator(self, round: int, purpose: str) -> np.random.Generator:
        return system_generator() if self.seed is None else numpy_generator(self.seed, round, SERVER, purpose)

    def _silence(self, round: int) -> Any:
        """Who falls silent before a stage, in a simulation."""
        rates = self.settings.dropout

        def silent(stage: str, node: int) -> bool:
            rate = getattr(rates, stage)
            if not rate:
                return False
            purpose = f"secagg dropout/{stage}"
            rng = system_generator() if self.seed is None else numpy_generator(self.seed, round, node, purpose)
            return bool(rng.random() < rate)

        return silent

    def _check_quorum(self, groups: Sequence[Group], sampled: int) -> None:
        """End all groups where too few clients are in them: what is not aggregated need not be unmasked either."""
        standing = sum(len(group.standing) for group in groups)
        if standing >= self._min_success_fraction * sampled:
            return
        why = _below(standing, sampled, self._min_success_fraction)
        for group in groups:
            if group.ended is None:
                group.end(why)

    def _replies(self, groups: Sequence[Group], sampled: int, round: int) -> list[Message]:
        """One reply a group that has a sum, and an error reply for every client that is in none."""
        found = [(group, *self._open(group)) for group in groups]
        answered = sum(len(survivors) for _, survivors, mean in found if mean is not None)
        enough = answered >= self._min_success_fraction * sampled
        metric_names = sorted({name for _, _, mean in found if mean is not None for name in mean.metrics})
        replies = []
        for index, (group, survivors, mean) in enumerate(found):
            if mean is not None and not enough:
                group.end(_below(answered, sampled, self._min_success_fraction))
            if group.ended is not None:
                log.warning("round %d, group %d has no sum: %s", round, index, group.ended)
            elif mean is not None:
                replies.append(self._reply(group, survivors, mean, metric_names, index))
            replies += self._errors(group, survivors)
        return replies

    def _open(self, group: Group) -> tuple[tuple[int, ...], GroupMean | None]:
        """The members in a group's sum, and what the sum says; nobody and None where there is none."""
        if group.ended is not None:
            return (), None
        try:
            result = group.session.result
            facts = group.facts[result.survivors[0]]
            layout = self._layout(group.messages, facts.weight_bound)
            total = group.encoder.decode(result.total, len(result.survivors))
            return result.survivors, layout.unpack(total, len(result.survivors), facts.metrics)
        except (Aborted, DataError) as error:
            group.end(str(error))
            return (), None

    def _reply(
        self, group: Group, survivors: Sequence[int], mean: GroupMean, metric_names: Sequence[str], index: int
    ) -> Message:
        first = group.messages[survivors[0]]
        told = dict(group.facts[survivors[0]].told)
        update = torch.from_numpy(mean.update)
        name = _model_name(first)
        if told.get("update-form") == "model":
            update = read_vector(first.content.array_records[name], len(update)).to(update.dtype) + update
        metrics = {key: mean.metrics.get(key, float("nan")) for key in metric_names}
        config: dict[str, Any] = {
            **told,
            GROUP: [group.messages[node].metadata.message_id for node in survivors],
            "group-index": index,
        }
        if mean.clipped is not None:
            config[CLIPPED_SHARE] = mean.clipped
        idle = {group.messages[node].metadata.message_id: group.facts[node].idle for node in survivors}
        if any(why is not None for why in idle.values()):
            config[IDLE] = json.dumps({message: why for message, why in idle.items() if why is not None})
        content = RecordDict(
            {
                name: vector_record(update.to(torch.float32)),
                METRICS: metric_record({**metrics, WEIGHT: mean.weight}),
                CONFIG: ConfigRecord(config),
            }
        )
        return _answer(first, content)

    def _errors(self, group: Group, survivors: Sequence[int]) -> list[Message]:
        in_sum = set(survivors) if group.ended is None else set()
        without = f"its group has no sum: {group.ended}"
        return [
            _error(message, f"secure aggregation: {group.failed.get(node, without)}")
            for node, message in group.messages.items()
            if node not in in_sum
        ]


def _is_train(message: Message) -> bool:
    return message.metadata.message_type.split(".")[0] == "train"


def _model_name(message: Message) -> str:
    """The record of the model in a train message: the only one, or that which our strategy calls so."""
    records = message.content.array_records
    return ARRAYS if len(records) > 1 and ARRAYS in records else next(iter(records), ARRAYS)


def _model_size(message: Message) -> int:
    """D of the flat vector that a train message holds.

    Raises:
        ConfigurationError: a model that is not one flat vector.
    """
    record = message.content.array_records.get(_model_name(message))
    shapes = [] if record is None else [tuple(array.shape) for array in record.values()]
    if len(shapes) != 1 or len(shapes[0]) != 1:
        raise ConfigurationError(
            f"secure aggregation masks one flat vector, and the train message holds arrays of shapes {shapes}: send "
            "what fedmeta.wire.vector_record makes"
        )
    return int(shapes[0][0])


def _below(answered: int, sampled: int, fraction: float) -> str:
    return f"{answered} of {sampled} clients are in sums, below server.min_success_fraction = {fraction:g}"


def _answer(message: Message, content: RecordDict) -> Message:
    reply = Message(content, reply_to=message)
    give_id(reply)
    return reply


def _error(message: Message, reason: str) -> Message:
    reply = Message(Error(UNKNOWN, reason), reply_to=message)
    give_id(reply)
    return reply
