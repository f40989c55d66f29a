"""A whole group in one process, every message through its bytes, every client through its written-down state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from fedmeta.privacy.secagg import ClientSession, GroupContext, Plan, Policy, ServerSession, choose_plan, parse
from fedmeta.privacy.secagg.failures import Refused
from fedmeta.privacy.secagg.messages import Reply, Request, Stage

Tamper = Callable[[int, Stage, Reply], Reply]


@dataclass
class Group:
    """n clients with random vectors. `drops`: stage -> how many of those asked say nothing."""

    n: int
    length: int = 8
    bits: int = 32
    seed: int = 0
    drops: Mapping[Stage, int] = field(default_factory=dict)
    plan: Plan | None = None
    policy: Policy = Policy()
    tamper: Tamper = lambda node, stage, reply: reply

    def __post_init__(self) -> None:
        self.draw = np.random.default_rng(self.seed)
        ids = self.draw.choice(2**62, size=self.n, replace=False) if self.n < 100 else range(7, 7 + 3 * self.n, 3)
        self.context = GroupContext("run", 3, 1, tuple(int(node) for node in ids))
        self.dtype = np.dtype(f"u{self.bits // 8}")
        self.vectors = {
            node: self.draw.integers(0, 2**self.bits, self.length, dtype=self.dtype) for node in self.context.members
        }
        self.states: dict[int, bytes] = {}
        self.masked: dict[int, np.ndarray] = {}
        self.server = ServerSession(
            self.context,
            self.plan or choose_plan(self.n),
            bits=self.bits,
            length=self.length,
            generator=self.draw,
            trusted=self.policy.trusted,
        )

    def run(self, until: Stage = Stage.ENDED) -> "Group":
        """Go through the exchanges up to a stage; Aborted comes through, a refusing client falls silent."""
        while self.server.stage is not until:
            self.exchange()
            self.server.advance()
        return self

    def exchange(self) -> None:
        """One stage: everybody who is asked and not drawn to drop replies."""
        stage, asked = self.server.stage, sorted(self.server.requests())
        absent = set(self.draw.permutation(asked)[: self.drops.get(stage, 0)].tolist())
        for node, request in self.server.requests().items():
            if node in absent:
                continue
            try:
                reply = self.tamper(node, stage, self.answer(node, request))
                self.server.receive(node, parse(reply.to_bytes()))
            except Refused:
                continue

    def answer(self, node: int, request: Request) -> Reply:
        """One client's reply, in a process of its own but for the process."""
        return answer(self.states, node, parse(request.to_bytes()), self.vectors[node], self.policy)

    def check_sum(self) -> None:
        """The result is the survivors' sum to the last bit, and nothing is lost in the books."""
        result = self.server.result
        expected = np.zeros(self.length, dtype=self.dtype)
        for node in result.survivors:
            expected += self.vectors[node]
        np.testing.assert_array_equal(result.total, expected)
        assert set(result.survivors) | set(result.dropped) == set(self.context.members)
        assert not set(result.survivors) & set(result.dropped)


def answer(states: dict[int, bytes], node: int, request: Request, vector: np.ndarray, policy: Policy) -> Reply:
    """Take the state from the node's store, reply, and put it back whatever happens."""
    if node not in states:
        session, reply = ClientSession.begin(node, request, policy)
        states[node] = session.to_bytes()
        return reply
    session = ClientSession.from_bytes(states[node])
    try:
        match session.stage:
            case Stage.SHARES:
                return session.share(request, policy)
            case Stage.MASK:
                return session.mask(request, vector)
            case _:
                return session.unmask(request)
    finally:
        states[node] = session.to_bytes()


@pytest.fixture(scope="session")
def make_group() -> type[Group]:
    """`make_group(n, drops=...)`: a group to run."""
    return Group
