"""One client after the other, each with what is its own; failures name the user's line."""

import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.cohort import CohortApp
from fedmeta.wire import config_record, metric_record, vector_record
from simulations.engine.executor import Outcome, Turn, run_turns
from simulations.engine.flower_internals import adopt_identity, give_id, with_content
from strategies.partial_sums import BITS


def turns(count: int, kind: str = "train") -> list[Turn]:
    adopt_identity()
    content = RecordDict({"arrays": ArrayRecord({"w": Array(np.ones(2))})})
    made = []
    for client in range(count):
        message = Message(content, 1000 + client, kind)
        give_id(message)
        context = Context(
            run_id=1, node_id=1000 + client, node_config={"partition-id": client}, state=RecordDict(), run_config={}
        )
        made.append(Turn(message, context, seed=client))
    return made


def reasons(outcomes: list[Outcome]) -> list[str]:
    return [outcome.reply.error.reason or "" if outcome.reply.has_error() else "" for outcome in outcomes]


def empty(message: Message) -> Message:
    return Message(RecordDict(), reply_to=message)


def test_a_failure_inside_a_library_names_the_users_line() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        np.testing.assert_array_equal(np.ones(2), np.zeros(2))
        return empty(message)

    [reason] = reasons(run_turns(app, turns(1)))
    assert "AssertionError" in reason and "(test_executor.py:" in reason and "in train)" in reason
    assert "\n" not in reason


def test_what_is_no_reply_is_an_error() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return [None, message][context.node_config["partition-id"]]  # type: ignore[return-value]

    none, same = reasons(run_turns(app, turns(2)))
    assert "NoneType, not a Message" in none and "no reply to what it was sent" in same


def test_an_action_nobody_registered_is_an_error() -> None:
    assert "No query function registered" in reasons(run_turns(ClientApp(), turns(1, "query")))[0]


def test_a_cohort_that_gives_too_few_replies_is_asked_one_by_one() -> None:
    app = CohortApp()
    sizes = []

    @app.cohort_train()
    def train(messages: list[Message], contexts: list[Context]) -> list[Message]:
        sizes.append(len(messages))
        return [empty(message) for message in messages][:2]

    assert reasons(run_turns(app, turns(3))) == ["", "", ""] and sizes == [3, 1, 1, 1]


def test_a_failing_cohort_starts_again_from_the_committed_state() -> None:
    app = CohortApp()

    @app.cohort_train()
    def train(messages: list[Message], contexts: list[Context]) -> list[Message]:
        for context in contexts:
            assert "mark" not in context.state
            context.state["mark"] = MetricRecord({"n": 1})
        if len(messages) > 1:
            raise MemoryError("too many at once")
        return [empty(message) for message in messages]

    outcomes = run_turns(app, turns(3))
    assert reasons(outcomes) == ["", "", ""] and all("mark" in outcome.state for outcome in outcomes)


def test_replies_in_the_wrong_order_are_not_taken_for_each_others() -> None:
    app = CohortApp()

    @app.cohort_train()
    def train(messages: list[Message], contexts: list[Context]) -> list[Message]:
        return [empty(message) for message in reversed(messages)]

    assert [bool(reason) for reason in reasons(run_turns(app, turns(2)))] == [True, True]


def test_updates_that_are_made_as_they_are_asked_for_are_never_there_all_at_once() -> None:
    app, alive = CohortApp(), []

    @app.cohort_train()
    def train(messages: list[Message], contexts: list[Context]) -> Iterator[Message]:
        for message in messages:
            alive.append(sum(reference() is not None for reference in arrays))
            array = vector_record(torch.ones(3))
            arrays.append(weakref.ref(array["flat"]))
            facts = {"spec-hash": "s", "update-form": "delta"}
            content = {"arrays": array, "metrics": metric_record({"num-examples": 1}), "config": config_record(facts)}
            yield Message(RecordDict(content), reply_to=message)

    arrays: list[weakref.ref[Array]] = []
    asked = RecordDict({"arrays": vector_record(torch.zeros(3)), "config": config_record({"reduce": "uniform"})})
    outcomes = run_turns(app, [replace(turn, message=with_content(turn.message, asked)) for turn in turns(4)])
    assert max(alive) <= 1, "an update is gone once it is in the sum, but for the one that the loop still names"
    assert [len(outcome.reply.content.array_records) for outcome in outcomes] == [1, 0, 0, 0]
    assert outcomes[0].reply.content["arrays"]["flat"].numpy().tolist() == [4 * 2**BITS] * 3


def test_replies_are_looked_at_where_they_are_made_when_asked() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict({"a": vector_record(torch.tensor([torch.nan]))}), reply_to=message)

    assert run_turns(app, turns(1))[0].outline is None
    found = run_turns(app, turns(1), check=True)[0].outline
    assert found is not None and found.names == ("arrays a",) and "NaN" in str(found.fault)
    assert run_turns(ClientApp(), turns(1), check=True)[0].outline is None, "an error is no reply to look at"


def test_a_client_that_changes_its_message_is_judged_by_what_was_sent() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        message.metadata.message_type = "query.other"
        message.metadata.dst_node_id = 1
        message.content["arrays"]["w"] = Array(np.ones(9))
        return Message(RecordDict({"arrays": ArrayRecord({"w": Array(np.full(9, np.nan))})}), reply_to=message)

    [turn] = turns(1)
    [outcome] = run_turns(app, [turn], check=True)
    assert outcome.outline is not None and "(9,), not float64 (2,) as sent" in str(outcome.outline.fault)
    assert turn.message.metadata.message_type == "train" and turn.message.metadata.dst_node_id == 1000


def test_records_that_an_app_fills_again_keep_what_each_client_said() -> None:
    app, record, content = ClientApp(), MetricRecord(), RecordDict()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        record["who"] = int(context.node_config["partition-id"])
        content["metrics"] = record
        return Message(content, reply_to=message)

    assert [outcome.reply.content["metrics"]["who"] for outcome in run_turns(app, turns(3))] == [0, 1, 2]


def test_a_cohort_of_one_runs_its_handler_to_the_end_and_takes_one_reply() -> None:
    app, more = CohortApp(), 0

    @app.cohort_train()
    def train(messages: list[Message], contexts: list[Context]) -> Iterator[Message]:
        for message, context in zip(messages, contexts, strict=True):
            yield empty(message)
            context.state["after"] = MetricRecord({"n": 1})
        for _ in range(more):
            yield empty(messages[0])

    [turn] = turns(1)
    app(turn.message, turn.context)
    assert "after" in turn.context.state and "after" in run_turns(app, turns(1))[0].state
    more = 1
    with pytest.raises(ValueError, match="too many"):
        app(turn.message, turn.context)
    assert "more replies than" in reasons(run_turns(app, turns(1)))[0]


def test_an_error_before_the_first_reply_names_the_users_line() -> None:
    app = CohortApp()

    @app.cohort_train()
    def train(messages: list[Message], contexts: list[Context]) -> list[Message]:
        return [next(iter(()))]

    for reason in reasons(run_turns(app, turns(2))):
        assert "StopIteration" in reason and "test_executor.py" in reason
