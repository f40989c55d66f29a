"""SecureAggregationGrid: any strategy gets one reply for each group of clients, and no one sees a single update."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid
from torch import Tensor

from fedmeta.errors import ConfigurationError, FedmetaError
from fedmeta.privacy.noise import system_generator
from fedmeta.privacy.secagg import GroupContext, ServerSession
from fedmeta.privacy.secagg_section import SecaggSection
from fedmeta.privacy.secagg_settings import LEAST_CLIENTS, group_plan
from fedmeta.seeding import SERVER, numpy_generator
from strategies.decorator import GridDecorator, Remembering, round_of
from strategies.message_ids import give_id
from strategies.secagg_encoding import Encoding, PlainSums
from strategies.secagg_groups import partition
from strategies.secagg_replies import error_reply, group_replies, model_size, open_sums
from strategies.secagg_round import STAGES, Exchanges, Group, Silent


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
        encoding: of what is summed; None: the exact sums that `settings` and `weighting` describe.

    State that lasts: that of the encoding, such as an adaptive clip norm.

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
        encoding: Encoding | None = None,
    ) -> None:
        super().__init__(grid)
        if getattr(grid, "rewrites_replies", False):
            raise ConfigurationError(
                "an attacker who rewrites replies cannot act under secure aggregation, where they are masked: use "
                "attack.knowledge = 'own' or 'colluding', which act within the clients"
            )
        self.settings, self.seed = settings, seed
        self._encoding: Encoding = PlainSums(settings, weighting == "tasks") if encoding is None else encoding
        self._min_success_fraction, self._trusted = min_success_fraction, trusted
        # Keys hold in one run and round only. A resumed run is another one to its clients.
        self._run_name = system_generator().bytes(16).hex()
        self._turns = 0

    def state(self) -> dict[str, Tensor]:
        """What the encoding remembers of the rounds before."""
        return self._encoding.state() if isinstance(self._encoding, Remembering) else {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        if isinstance(self._encoding, Remembering):
            self._encoding.load_state(state)

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
            self._grid,
            groups,
            lambda group: self._encoding.told(len(group.messages)),
            min(limits, default=None),
            self._silence(round),
        )
        for stage in STAGES:
            if stage == "unmask":
                self._check_survivors(groups)
                self._check_quorum(groups, [len(group.standing) for group in groups], len(messages))
            exchanges.play(stage)
        opened = open_sums(groups, self._encoding)
        self._check_quorum(groups, [len(one.survivors) for one in opened], len(messages))
        return [*refused, *group_replies(opened)]

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
                refused += [error_reply(message, str(error)) for message in members.values()]
        return groups, refused

    def _group(self, index: int, members: dict[int, Message], round: int) -> Group:
        settings = self.settings
        if len(members) < LEAST_CLIENTS and not settings.allow_unsafe_groups:
            raise ConfigurationError(
                f"a group of {len(members)} clients, fewer than {LEAST_CLIENTS}, hides too little: sample more "
                "clients, or set secagg.allow_unsafe_groups = true"
            )
        size = model_size(next(iter(members.values())))
        encoder = self._encoding.encoder(round, len(members))
        session = ServerSession(
            GroupContext(self._run_name, self._turns, index, tuple(members)),
            group_plan(settings, len(members)),
            bits=settings.bits,
            length=encoder.length(self._encoding.layout(size).length),
            generator=self._generator(round, f"secagg graph/{index}"),
            trusted=self._trusted,
        )
        return Group(session, members, encoder)

    def _generator(self, round: int, purpose: str) -> np.random.Generator:
        return system_generator() if self.seed is None else numpy_generator(self.seed, round, SERVER, purpose)

    def _silence(self, round: int) -> Silent:
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

    def _check_survivors(self, groups: Sequence[Group]) -> None:
        """End groups whose sum would hold less noise than is accounted: once unmasked, it could not be taken back."""
        for group in groups:
            left = len(group.standing)
            if group.ended is None and left < self._encoding.least:
                group.end(
                    f"{left} of {len(group.messages)} clients sent a masked update, and "
                    f"privacy.min_survivors = {self._encoding.least}"
                )

    def _check_quorum(self, groups: Sequence[Group], counted: Sequence[int], sampled: int) -> None:
        """End all groups where too few clients are in them: what is not aggregated need not be unmasked either.

        Args:
            groups: of the round.
            counted: clients of each that are, or can still be, in its sum.
            sampled: clients of the round.
        """
        if sum(counted) >= self._min_success_fraction * sampled:
            return
        for group in groups:
            if group.ended is None:
                group.end(
                    f"{sum(counted)} of {sampled} clients are in sums, below "
                    f"server.min_success_fraction = {self._min_success_fraction:g}"
                )


def _is_train(message: Message) -> bool:
    return message.metadata.message_type.split(".")[0] == "train"
