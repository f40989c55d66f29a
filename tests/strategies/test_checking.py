"""What may reach a strategy: each of these would end or poison Flower's FedAvg."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from simulations import InlineGrid
from simulations.engine.flower_internals import adopt_identity, give_id
from strategies.checking import CheckedGrid, check_replies


def content(array: np.ndarray | None = None, metrics: dict | None = None) -> RecordDict:
    records = {} if array is None else {"arrays": ArrayRecord({"w": Array(array)})}
    return RecordDict({**records, "metrics": MetricRecord({"num-examples": 1, **(metrics or {})})})


def checked(*contents: RecordDict, kind: str = "train") -> list[str]:
    adopt_identity()
    messages = [Message(content(np.ones(3)), 10 + i, kind) for i in range(len(contents))]
    for message in messages:
        give_id(message)
    replies = [Message(reply, reply_to=message) for message, reply in zip(messages, contents, strict=True)]
    found = check_replies(messages, replies)
    assert [r.metadata.reply_to_message_id for r in found] == [m.metadata.message_id for m in messages]
    return [reply.error.reason or "" if reply.has_error() else "" for reply in found]


GOOD = np.arange(3.0)


def garbage() -> RecordDict:
    bad = content(GOOD)
    bad["arrays"]["w"] = Array(dtype="float64", shape=(3,), stype="numpy.ndarray", data=b"garbage")
    return bad


def unheard_of() -> RecordDict:
    odd = content(GOOD)
    odd["arrays"]["w"] = Array(dtype="float99", shape=(3,), stype="numpy.ndarray", data=b"")
    return odd


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (content(np.array([1.0, np.nan, 2.0])), "1 values that are NaN"),
        (content(np.ones(1)), "not float64 (3,)"),
        (content(np.ones(3, dtype=complex)), "complex128"),
        (unheard_of(), "array 'w' is float99"),
        (content(None), "where most clients send"),
        (content(GOOD, {"num-examples": [1, 2]}), "num-examples = [1, 2] is not a count"),
        (content(GOOD, {"extra": 1.0}), "where most clients send"),
        (content(GOOD, {"num-examples": -1}), "-1 is not a count"),
        (content(GOOD, {"num-examples": float("inf")}), "is not a count"),
        (garbage(), "bytes that are no array"),
    ],
)
def test_one_bad_reply_is_refused_and_the_others_pass(bad: RecordDict, words: str) -> None:
    reasons = checked(content(GOOD), bad, content(GOOD), content(GOOD))
    assert words in reasons[1] and reasons[0] == reasons[2] == reasons[3] == ""


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float16, np.bool_])
def test_numbers_of_another_dtype_pass(dtype: type) -> None:
    """FedAvg sends the mean of what a batch normalisation counted, a float, and the client answers with a count."""
    assert checked(content(GOOD), content(np.ones(3, dtype=dtype))) == ["", ""]


def test_weights_that_are_all_zero_are_no_replies() -> None:
    zero = content(GOOD, {"num-examples": 0})
    assert all("there is no mean" in reason for reason in checked(zero, zero))
    assert checked(zero, content(GOOD)) == ["", ""]


def test_evaluations_are_checked_and_queries_are_not() -> None:
    odd = [content(None, {"loss": 1.0}), content(None, {"loss": 2.0}), content(None, {"mse": 1.0})]
    assert [bool(reason) for reason in checked(*odd, kind="evaluate")] == [False, False, True]
    assert checked(*odd, kind="query.anything") == ["", "", ""]


def test_several_records_pass_where_most_send_them() -> None:
    """A strategy that exchanges control variates beside the model, as SCAFFOLD does."""
    both = content(GOOD)
    both["controls"] = ArrayRecord({"c": Array(np.zeros(5))})
    alone = content(GOOD)
    assert [bool(reason) for reason in checked(both, alone, both)] == [False, True, False]


def test_any_grid_can_be_wrapped() -> None:
    """One client of three answers NaN: Flower's FedAvg averages the other two."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition = context.node_config["partition-id"]
        return Message(content(np.full(3, [1.0, np.nan, 3.0][partition])), reply_to=message)

    arrays = ArrayRecord({"w": Array(np.ones(3))})
    with InlineGrid(app, 3, check=False) as inner:
        grid = CheckedGrid(inner)
        strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=3)
        result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=1)
        assert grid.run.run_id == inner.run.run_id and [node.node_id for node in grid.get_nodes()] == [1000, 1001, 1002]
    assert result.arrays["w"].numpy().tolist() == [2.0, 2.0, 2.0]
