"""The grid of a deployment, against a SuperLink in this process whose nodes do as a test says."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

import server.polling_grid as polling_grid
from fedmeta.errors import FedmetaError
from server.nodes_there import wait_for_nodes
from server.polling_grid import NODE_UNAVAILABLE, LinkLost, PollingGrid, Waiting
from simulations.engine.flower_internals import adopt_identity, give_id
from strategies.node_keys import registered_keys

Work = Callable[[Message], Message | None]


def answer(message: Message) -> Message:
    return Message(RecordDict({"m": MetricRecord({"n": message.metadata.dst_node_id})}), reply_to=message)


@dataclass
class Node:
    """A SuperNode: what it makes of a message, after how many seconds, and whether it is there."""

    seconds: float = 0.0
    there: bool = True
    activated: str = "first"
    received: list[str] = field(default_factory=list)


class Link(Grid):
    """A SuperLink as the grid sees it: replies are there after a while, unless their node went away or restarted."""

    def __init__(self, nodes: dict[int, Node]) -> None:
        adopt_identity()
        self.nodes, self.sent, self.pulls = nodes, {}, 0  # type: ignore[var-annotated]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        accepted = []
        for message in messages:
            identity = give_id(message)
            if message.metadata.dst_node_id in self.nodes:
                node = self.nodes[message.metadata.dst_node_id]
                node.received.append(identity)
                self.sent[identity] = (message, node.activated, time.monotonic() + node.seconds)
                accepted.append(identity)
            else:
                accepted.append(None)  # as the SuperLink says of a node it does not know
        return accepted

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self.pulls += 1
        came = []
        for identity in message_ids:
            message, activated, ready = self.sent[identity]
            node = self.nodes[message.metadata.dst_node_id]
            if not node.there:
                came.append(Message(Error(NODE_UNAVAILABLE, "away"), reply_to=message))
            elif node.activated == activated and time.monotonic() >= ready:
                came.append(answer(message))
        return came

    def get_nodes(self) -> Any:
        return [
            SimpleNamespace(node_id=number, last_activated_at=node.activated)
            for number, node in self.nodes.items()
            if node.there
        ]

    def get_node_ids(self) -> Iterable[int]:
        return [node.node_id for node in self.get_nodes()]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise AssertionError("the decorator must poll by itself")

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any: ...

    def create_message(self, *_: Any, **__: Any) -> Any: ...


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FIRST_PAUSE", 0.01), ("LONGEST_PAUSE", 0.02), ("LOOK_AT_NODES", 0.03)):
        monkeypatch.setattr(polling_grid, name, value)


def ask(*nodes: int, kind: str = "train") -> list[Message]:
    return [Message(RecordDict(), dst_node_id=node, message_type=kind) for node in nodes]


def ids(replies: Iterable[Message]) -> set[str]:
    return {reply.metadata.reply_to_message_id for reply in replies}


def test_all_replies_come_under_the_ids_of_their_messages() -> None:
    link = Link({5: Node(0.05), 6: Node(0.0)})
    messages = ask(5, 6)
    replies = list(PollingGrid(link).send_and_receive(messages, timeout=5))
    assert ids(replies) == {message.metadata.message_id for message in messages} and link.pulls >= 2
    assert list(PollingGrid(link).send_and_receive([], timeout=5)) == []


def test_one_that_never_answers_costs_the_time_limit_and_only_its_own_reply() -> None:
    link = Link({5: Node(99.0), 6: Node(0.0)})
    started = time.monotonic()
    [reply] = PollingGrid(link).send_and_receive(ask(5, 6), timeout=0.3)
    assert reply.content["m"]["n"] == 6 and 0.25 < time.monotonic() - started < 2


@pytest.mark.parametrize(("fraction", "kind", "found"), [(0.5, "train", 2), (0.9, "train", 3), (0.5, "evaluate", 3)])
def test_stragglers_are_not_waited_for_once_enough_have_answered(fraction: float, kind: str, found: int) -> None:
    """Training goes on with what there is; judging waits, since a mean over others would be no comparison."""
    link = Link({5: Node(0.0), 6: Node(0.0), 7: Node(0.4)})
    waiting = Waiting(fraction=fraction, patience=0.05)
    replies = list(PollingGrid(link, waiting).send_and_receive(ask(5, 6, 7, kind=kind), timeout=5))
    assert len(replies) == found


def test_a_node_that_comes_back_gets_its_message_again_and_counts_once() -> None:
    node = Node(0.0, there=False)
    link = Link({5: node, 6: Node(0.0)})
    messages = ask(5, 6)

    started, real_sleep = time.monotonic(), time.sleep

    def sleep_and_return(seconds: float) -> None:
        node.there = time.monotonic() > started + 0.1
        real_sleep(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polling_grid.time, "sleep", sleep_and_return)
        replies = list(PollingGrid(link).send_and_receive(messages, timeout=5))
    assert len(node.received) == 2 and not any(reply.has_error() for reply in replies)
    assert ids(replies) == {message.metadata.message_id for message in messages}, "the caller's own ids"


def test_a_node_that_restarted_unseen_gets_its_message_again() -> None:
    """Killed and back before its heartbeats were missed: the message it had is lost, and nothing says so."""
    node = Node(0.2)
    link = Link({5: node})
    real_sleep = time.sleep

    def sleep_and_restart(seconds: float) -> None:
        node.activated, node.seconds = "second", 0.0
        real_sleep(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polling_grid.time, "sleep", sleep_and_restart)
        [reply] = PollingGrid(link).send_and_receive(ask(5), timeout=5)
    assert len(node.received) == 2 and not reply.has_error()


def test_a_node_that_stays_away_is_given_up_with_flowers_words() -> None:
    link = Link({5: Node(there=False), 6: Node()})
    started = time.monotonic()
    replies = list(PollingGrid(link, Waiting(return_timeout=0.1)).send_and_receive(ask(5, 6), timeout=60))
    assert [reply.error.reason for reply in replies if reply.has_error()] == ["away"]
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("kind", ["query.secagg_keys", "train"])
def test_messages_of_a_protocol_with_memory_are_not_repeated(kind: str) -> None:
    node = Node(there=False)
    link = Link({5: node})
    [message] = ask(5, kind=kind)
    message.content["secagg"] = ConfigRecord({"message": b""})
    [reply] = PollingGrid(link, Waiting(fraction=0.0, patience=0.0)).send_and_receive([message], timeout=5)
    assert reply.has_error() and len(node.received) == 1


@pytest.mark.parametrize(("kind", "times"), [("train", 1), ("evaluate", 2), ("query.identity", 2)])
def test_an_update_with_a_clients_own_noise_is_asked_for_once(kind: str, times: int) -> None:
    """A second one would be a second release, of which the server's account knows nothing."""
    node = Node(0.1)
    real_sleep = time.sleep

    def sleep_and_restart(seconds: float) -> None:
        node.activated = "second"
        real_sleep(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polling_grid.time, "sleep", sleep_and_restart)
        grid = PollingGrid(Link({5: node}), Waiting(repeat_training=False))
        replies = list(grid.send_and_receive(ask(5, kind=kind), timeout=0.6))
    assert len(node.received) == times and len(replies) == times - 1


def test_a_message_that_kills_its_node_is_not_sent_for_ever() -> None:
    node = Node(0.05)
    link = Link({5: node})
    real_sleep = time.sleep

    def die_and_return(seconds: float) -> None:
        node.activated += "+"
        real_sleep(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polling_grid.time, "sleep", die_and_return)
        assert list(PollingGrid(link).send_and_receive(ask(5), timeout=1)) == []
    assert len(node.received) == polling_grid.MOST_SENDINGS


def test_a_node_that_the_superlink_does_not_know_is_an_error_reply_at_once() -> None:
    link = Link({6: Node()})
    messages = ask(5, 6)
    replies = {r.metadata.reply_to_message_id: r for r in PollingGrid(link).send_and_receive(messages, timeout=5)}
    assert "not, or no longer, registered" in replies[messages[0].metadata.message_id].error.reason
    assert not replies[messages[1].metadata.message_id].has_error()


def test_a_superlink_that_is_gone_is_told_so_that_the_run_may_be_submitted_again() -> None:
    class Gone(Link):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            raise httpx.ConnectError("All connection attempts failed")

    with pytest.raises(LinkLost, match=r"^lost the SuperLink: All connection"):
        PollingGrid(Gone({5: Node()})).send_and_receive(ask(5), timeout=5)


def test_a_superlink_that_goes_while_nodes_are_waited_for_or_asked_is_told_alike() -> None:
    """Between rounds, too: or the run would count as failed for a reason of its own, and never be submitted again."""

    class Gone(Link):
        def get_nodes(self) -> Any:
            raise httpx.ConnectError("All connection attempts failed")

    grid = PollingGrid(Gone({5: Node()}))
    for ask_it in (lambda: wait_for_nodes(grid, 1, 0), lambda: registered_keys(grid)):
        with pytest.raises(LinkLost, match=r"^lost the SuperLink: All connection"):
            ask_it()


def test_what_a_round_went_on_without_names_those_that_are_away(caplog: pytest.LogCaptureFixture) -> None:
    link = Link({5: Node(), 6: Node(99.0), 7: Node(there=False)})
    waiting = Waiting(fraction=0.3, patience=0.05)
    replies = list(PollingGrid(link, waiting).send_and_receive(ask(5, 6, 7), timeout=5))
    assert sorted(reply.has_error() for reply in replies) == [False, True]
    assert "goes on without nodes [6, 7]" in caplog.text


def test_a_run_waits_for_its_nodes_up_to_a_deadline() -> None:
    link = Link({5: Node(), 6: Node(there=False)})

    def arrive(seconds: float) -> None:
        link.nodes[6].there = True

    assert wait_for_nodes(link, 1, 0) == 1
    assert wait_for_nodes(link, 2, 5, sleep=arrive) == 2
    with pytest.raises(FedmetaError, match=r"2 of 3 nodes .* lower deployment\.nodes"):
        wait_for_nodes(link, 3, 0)
    assert wait_for_nodes(link, 3, 0, least=1) == 2, "a run that goes on does so without those that are gone for good"
