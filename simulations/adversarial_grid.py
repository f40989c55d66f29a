"""AdversarialGrid: an attacker that sees a round's replies and rewrites those of malicious clients."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from flwr.app import Message
from flwr.serverapp import Grid
from torch import Tensor

from fedmeta.attacks import ATTACKS
from fedmeta.attacks.base import AttackContext, AttackImpossible, Pipeline, UpdateAttack, Verdict
from fedmeta.errors import ConfigurationError, did_you_mean
from fedmeta.parameters import require_number
from fedmeta.seeding import SERVER, torch_generator
from fedmeta.wire import ATTACKERS
from simulations.train_reply import TrainReply, layout_of, vector_of
from strategies.decorator import GridDecorator, round_of

log = logging.getLogger("fedmeta.attack")

Defence = Callable[[Tensor, Tensor, int], Verdict]
"""Updates `[n, D]`, benign rows first, the model `[D]` that clients started from, and the round: to the verdict."""

Knowledge = Literal["omniscient", "colluding"]


@dataclass(frozen=True)
class AttackedRound:
    """What the attackers did in one round.

    Attributes:
        round: of the run.
        attackers: ids of the malicious clients that replied.
        idle: why they sent what they had honestly trained; None where they attacked.
    """

    round: int
    attackers: tuple[int, ...]
    idle: str | None = None


class AdversarialGrid(GridDecorator):
    """A Grid whose malicious clients send what an attack on updates makes of the round's replies.

    Works with any strategy and any ClientApp that sends back the arrays it received: `FedAvg().start(
    grid=AdversarialGrid(grid, make_attack("ipm"), malicious={0, 3}), ...)`. All arrays of floating point are one
    vector to the attack, in the order in which they were sent; other arrays, metrics and weights stay the client's
    own. An update is the reply itself where it says `update-form = delta`, else the reply minus what was sent.
    Replies that are pulled pass as they are: an attacker that waits for all must be sent through `send_and_receive`.

    Args:
        grid: whose replies are in the clear.
        attack: of kind `update`, such as `make_attack("alie")`.
        malicious: client ids.
        clients: node id -> client id; None: the i-th node of the grid is client i, as on our engines.
        knowledge: `omniscient` knows the benign replies, `colluding` the attackers' own honest ones.
        start, stop: first and last round of the attack, both included; None: to the end.
        seed: of the attack's draws.
        defence: (updates `[n, D]`, model `[D]`, round) -> Verdict: the server's, for an attack that knows it.

    Raises:
        ConfigurationError: an attack that does not act on updates, or a grid under which replies are hidden.
    """

    rewrites_replies = True

    def __init__(
        self,
        grid: Grid,
        attack: UpdateAttack,
        malicious: Iterable[int],
        *,
        clients: Mapping[int, int] | None = None,
        knowledge: Knowledge = "omniscient",
        start: int = 1,
        stop: int | None = None,
        seed: int = 0,
        defence: Defence | None = None,
    ) -> None:
        super().__init__(grid)
        if not isinstance(attack, UpdateAttack):
            raise ConfigurationError(
                f"attack '{ATTACKS.name_of(attack)}' does not act on updates: malicious clients carry it out themselves"
            )
        if not getattr(grid, "in_clear", True):
            raise ConfigurationError(
                "the replies of this grid are masked, and no one can rewrite them: use attack.knowledge = 'own' or "
                "'colluding', which acts within the clients"
            )
        if knowledge not in get_args(Knowledge):
            raise ConfigurationError(
                f"unknown knowledge '{knowledge!s:.80}'{did_you_mean(str(knowledge), get_args(Knowledge))}"
            )
        for name, value in (("start", start), ("stop", stop), ("seed", seed)):
            if value is not None or name != "stop":
                require_number(name, value, whole=True)
        if seed < 0:
            raise ConfigurationError(f"seed = {seed} must be at least 0")
        self.history: list[AttackedRound] = []
        self._attack, self._malicious = attack, frozenset(malicious)
        self._clients, self._knowledge, self._defence = clients, knowledge, defence
        self._start, self._stop, self._seed = start, stop, seed
        self._memory: dict[str, Tensor] = {}
        self._told: set[str] = set()
        self._turns = 0

    def state(self) -> dict[str, Tensor]:
        """What the attack remembers of the rounds before."""
        return dict(self._memory)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        self._memory = dict(state)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send, wait, and let the attackers rewrite their replies to train messages."""
        sent = list(messages)
        replies = list(self._grid.send_and_receive(sent, timeout=timeout))
        asked = {message.metadata.message_id: message for message in sent}
        pairs = [
            (asked[reply.metadata.reply_to_message_id], reply)
            for reply in replies
            if reply.metadata.reply_to_message_id in asked and reply.has_content()
        ]
        trained = [(message, reply) for message, reply in pairs if message.metadata.message_type == "train"]
        if trained:
            self._attack_round(trained)
        return replies

    def _attack_round(self, pairs: Sequence[tuple[Message, Message]]) -> None:
        self._turns += 1
        round = round_of(pairs[0][0], self._turns)
        if round < self._start or (self._stop is not None and round > self._stop):
            return
        found = [answer for answer in self._by_client(pairs) if answer.layout]
        told = attackers_of(pairs[0][0])
        malicious = self._malicious if told is None else told
        mine = [answer for answer in found if answer.client in malicious]
        if not mine:
            return
        layout = mine[0].layout
        mine, found = ([answer for answer in some if answer.layout == layout] for some in (mine, found))
        known = (
            mine if self._knowledge == "colluding" else [answer for answer in found if answer.client not in malicious]
        )
        idle = None
        try:
            crafted = self._craft(round, len(found), known, len(mine))
        except AttackImpossible as error:
            idle = str(error)
            if idle not in self._told:
                log.warning("round %d: the attackers send honest updates: %s", round, idle)
                self._told.add(idle)
            for answer in mine:
                answer.say_idle(idle)
        else:
            for answer, row in zip(mine, crafted, strict=True):
                answer.rewrite(row.numpy())
        self.history.append(AttackedRound(round, tuple(answer.client for answer in mine), idle))

    def _by_client(self, pairs: Sequence[tuple[Message, Message]]) -> list[TrainReply]:
        """The answers by ascending client id."""
        clients = self._clients
        if clients is None:
            clients = {node: client for client, node in enumerate(self.get_node_ids())}
        strangers = self._malicious - set(clients.values())
        if strangers:
            raise ConfigurationError(
                f"malicious = {sorted(strangers)} are no clients of this grid: its ids are {min(clients.values())} to "
                f"{max(clients.values())}"
            )
        answers = [
            TrainReply(clients[message.metadata.dst_node_id], message, reply, layout_of(message.content, reply.content))
            for message, reply in pairs
        ]
        return sorted(answers, key=lambda answer: answer.client)

    def _craft(self, round: int, participants: int, known: Sequence[TrainReply], count: int) -> Tensor:
        rows = [answer.update() for answer in known]
        finite = [row for row in rows if np.isfinite(row).all()]
        if not finite:
            raise AttackImpossible("no update of this round is known to them")
        matrix = torch.from_numpy(np.stack(finite))
        self._memory = self._attack.remember(self._memory, matrix)
        generator = torch_generator(self._seed, round, SERVER, "attack")
        pipeline = self._pipeline(known[0], round)
        context = AttackContext(round, participants, pipeline, memory=self._memory)
        return self._attack(matrix, n_malicious=count, generator=generator, context=context)

    def _pipeline(self, answer: TrainReply, round: int) -> Pipeline | None:
        defence = self._defence
        if defence is None:
            return None
        model = torch.from_numpy(vector_of(answer.message.content, answer.layout))
        return lambda rows: defence(rows, model, round)


def attackers_of(message: Message) -> frozenset[int] | None:
    """Who attacks by the word of the strategy; None where it says nothing of that, as Flower's own."""
    for record in message.content.config_records.values():
        if ATTACKERS in record:
            return frozenset(int(client) for client in record[ATTACKERS])  # type: ignore[union-attr]
    return None
