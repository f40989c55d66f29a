"""Sums of updates: exact in any order, whole where they must be, and what is invalid stays to be refused by name."""

import itertools

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedmeta.wire import config_record, metric_record, vector_record
from simulations.engine.flower_internals import adopt_identity, give_id
from strategies.partial_sums import BITS, LIMIT, add, add_up, can_add, mean
from strategies.replies import sort_replies

SIZE = 5
VALUES = st.floats(-100, 100, width=32)


def asked(weighting: str = "uniform") -> Message:
    adopt_identity()
    model = vector_record(torch.zeros(SIZE))
    message = Message(RecordDict({"arrays": model, "config": config_record({"reduce": weighting})}), 1000, "train")
    give_id(message)
    return message


def reply(message: Message, update: object, weight: float = 1.0, form: str = "delta", spec: str = "s") -> Message:
    array = vector_record(torch.as_tensor(update, dtype=torch.float32))
    facts = {"spec-hash": spec, "update-form": form}
    content = {"arrays": array, "metrics": metric_record({"num-examples": weight}), "config": config_record(facts)}
    return Message(RecordDict(content), reply_to=message)


def through(groups: list[list[Message]], message: Message):
    """What the strategy reads when each group of replies comes from one actor."""
    found = [one for group in groups for one in add_up([message] * len(group), group)]
    return sort_replies(dict(enumerate(found)), SIZE, "s", sums=True)


@settings(deadline=None, max_examples=50)
@given(arrays(np.float32, (4, SIZE), elements=VALUES), arrays(np.int64, 4, elements=st.integers(0, 40)))
def test_the_mean_does_not_depend_on_who_shares_an_actor(rows, weights):
    message = asked("tasks")
    weights[0] += 1
    means = []
    for cuts in ([4], [1, 3], [2, 2], [1, 1, 1, 1]):
        starts = np.cumsum([0, *cuts])
        replies = [reply(message, row, float(weight)) for row, weight in zip(rows, weights, strict=True)]
        found = through([replies[a:b] for a, b in itertools.pairwise(starts)], message)
        assert not found.refused and not found.failed
        carried = [update.carried for update in found.updates if update.carried is not None]
        deltas = [update.delta for update in found.updates]
        means.append(mean(deltas, carried, torch.tensor(weights, dtype=torch.float64)))
    assert all(torch.equal(means[0], other) for other in means[1:])
    expected = np.average(rows.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(means[0].numpy(), expected, rtol=1e-6, atol=1e-10)


@settings(deadline=None, max_examples=200)
@given(
    arrays(np.float32, st.integers(0, 40), elements=st.floats(-LIMIT / 8, LIMIT / 8, width=32)),
    st.sampled_from([0.0, 5e-324, 1e-9, 1 / 3, 1.0, 3.0, 8.0]),
)
def test_what_is_added_is_rounded_to_the_nearest_multiple(update, weight):
    assert LIMIT < 2 ** (51 - BITS), "what the reading of bits can count"
    total = torch.full((len(update),), 7, dtype=torch.int64)
    assert can_add(update, weight)
    many = 9
    add(total, [update, *[-update] * many], [weight, *[1.0] * many])
    rounded = [np.rint(update.astype(np.float64) * each * 2.0**BITS).astype(np.int64) for each in (weight, 1.0)]
    expected = 7 + rounded[0] - many * rounded[1]
    np.testing.assert_array_equal(total.numpy(), expected)


def test_the_largest_entries_of_65536_clients_do_not_wrap():
    total = torch.tensor([2**16 - 1, 1 - 2**16]) * int(LIMIT) * 2**BITS
    add(total, [torch.tensor([LIMIT, -LIMIT])], [1.0])
    assert (total.double() * 2.0**-BITS).tolist() == [2**16 * LIMIT, -(2**16) * LIMIT]


def test_what_is_too_large_travels_whole():
    total = torch.zeros(1, dtype=torch.int64)
    for bad in (LIMIT * 1.01, -LIMIT * 1.01, float("nan"), float("-inf")):
        assert not can_add(torch.tensor([bad]), 1.0)
    assert can_add(torch.tensor([-LIMIT]), 1.0)
    add(total, [torch.tensor([-LIMIT])], [1.0])
    assert int(total) == -int(LIMIT) * 2**BITS
    message = asked()
    found = through(
        [[reply(message, [1e9] * SIZE), reply(message, [1.0] * SIZE), reply(message, [2.0] * SIZE)]], message
    )
    assert [update.delta is None for update in found.updates] == [False, True, True]
    carried = [update.carried for update in found.updates if update.carried is not None]
    assert len(carried) == 1
    total = mean([update.delta for update in found.updates], carried, torch.ones(3, dtype=torch.float64))
    assert total.tolist() == pytest.approx([(1e9 + 3) / 3] * SIZE)


@settings(deadline=None, max_examples=100)
@given(
    st.floats(-126, 126).map(lambda power: np.float32(2.0**power)),
    st.floats(0, 100).map(lambda power: 2.0**power),
    st.integers(1, 50),
)
def test_a_norm_lets_nothing_pass_that_is_too_large(entry, weight, size):
    """Whatever is lost of it in float32."""
    update = np.full(size, entry, dtype=np.float32)
    with np.errstate(over="ignore"):
        norm = float(np.linalg.norm(update))
    assert can_add(update, weight, norm) == can_add(update, weight) == (float(entry) * weight <= LIMIT)


def test_what_is_invalid_stays_to_be_refused_by_name():
    message = asked()
    good, nan, short = reply(message, [1.0] * SIZE), reply(message, [float("nan")] * SIZE), reply(message, [1.0] * 2)
    foreign = reply(message, [1.0] * SIZE, form="model")
    weightless = reply(message, [1.0] * SIZE, weight=float("nan"))
    found = through([[weightless, nan, short, foreign, good]], message)
    assert [update.client for update in found.updates] == [4] and sorted(found.refused) == [0, 1, 2, 3]
    assert found.updates[0].carried is not None
    assert "NaN or infinite" in found.refused[1] and "model" in found.refused[3]


def test_nothing_is_added_unasked():
    adopt_identity()
    message = Message(RecordDict({"config": config_record({"round": 1})}), 1000, "train")
    give_id(message)
    [kept] = add_up([message], [reply(message, [1.0] * SIZE)])
    assert kept.content["arrays"]["flat"].dtype == "float32"


def test_a_sum_of_another_size_is_refused():
    message = asked()
    [one] = add_up([message], [reply(message, [1.0] * SIZE)])
    one.content["arrays"] = ArrayRecord({"flat": Array(np.zeros(3, dtype=np.int64))})
    assert "int64 array" in sort_replies({0: one}, SIZE, "s", sums=True).refused[0]


def test_a_client_cannot_claim_to_be_in_a_sum_that_nobody_asked_for():
    """It would count, with a weight, and add nothing."""
    message = asked()
    claim = reply(message, [1.0] * SIZE, form="summed")
    del claim.content["arrays"]
    assert "'summed' where a delta was asked for" in sort_replies({0: claim}, SIZE, "s").refused[0]
    assert "without its client-update-norm" in sort_replies({0: claim}, SIZE, "s", sums=True).refused[0]


def test_replies_of_the_wrong_size_are_each_refused_and_add_nothing():
    message = asked()
    found = through([[*(reply(message, [9.0] * 7) for _ in range(3)), reply(message, [1.0] * SIZE)]], message)
    assert sorted(found.refused) == [0, 1, 2] and [update.client for update in found.updates] == [3]
    carried = [update.carried for update in found.updates if update.carried is not None]
    assert mean([None], carried, torch.ones(1, dtype=torch.float64)).tolist() == [1.0] * SIZE


def test_a_reply_for_another_model_joins_no_sum():
    message = asked()
    found = through([[reply(message, [9.0] * SIZE, spec="t"), reply(message, [1.0] * SIZE)]], message)
    assert sorted(found.refused) == [0]
    assert found.updates[0].carried is not None and found.updates[0].carried.tolist() == [2**BITS] * SIZE


def test_sums_take_no_room_for_whole_updates():
    message = asked()
    found = through([[reply(message, [1.0] * SIZE) for _ in range(4)]], message)
    assert found.matrix.shape == (0, SIZE) and found.matrix.untyped_storage().nbytes() == 0
