"""Arrays come out as they went in, and nothing reads freed memory."""

import copy
import pickle

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from simulations.engine.transport import LARGE, StoredArray, fresh, pack, settled, unpack

ARRAYS = {
    "large": np.arange(50_000.0),
    "fortran": np.asfortranarray(np.arange(60_000.0).reshape(200, 300)),
    "half": np.arange(30_000).astype(np.float16),
    "scalar": np.ones(()),
    "empty": np.ones((0, 3)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_survives_the_way(name: str) -> None:
    sent = Array(ARRAYS[name])
    got = unpack(pack(RecordDict({"a": ArrayRecord({"w": sent})})))["a"]["w"]
    assert isinstance(got, StoredArray) == (len(sent.data) >= LARGE)
    assert got == sent and sent == got and got.data == sent.data and got.object_id == sent.object_id
    values = got.numpy()
    np.testing.assert_array_equal(values, ARRAYS[name])
    assert values.flags.writeable and values.flags.f_contiguous == ARRAYS[name].flags.f_contiguous


def test_a_stored_array_can_be_copied_pickled_and_settled() -> None:
    records = RecordDict({"a": ArrayRecord({"w": Array(ARRAYS["large"])}), "m": MetricRecord({"n": 1})})
    got = unpack(pack(records))
    assert copy.deepcopy(got) == records and unpack(pack(got)) == records
    again = pickle.loads(pickle.dumps(got))
    assert again == records and type(again["a"]["w"]) is Array
    assert settled(got) == records and type(settled(got)["a"]["w"]) is Array
    assert got["a"]["w"] != Array(ARRAYS["large"] + 1)


def test_a_record_in_many_messages_travels_once() -> None:
    record = ArrayRecord({"w": Array(ARRAYS["large"])})
    contents = [RecordDict({"arrays": record, "own": MetricRecord({"n": n})}) for n in range(3)]
    assert len(pack(contents).buffers) == 1 and unpack(pack(contents)) == contents


def test_received_records_are_flowers_own_to_whoever_reads_writes_hashes_or_copies_them() -> None:
    sent = RecordDict({"a": ArrayRecord({"w": Array(np.ones(3))}), "m": MetricRecord({"n": 1}), "c": ConfigRecord()})
    got = unpack(pack(sent))
    for name in ("array_records", "metric_records", "config_records"):
        assert getattr(got, name) == getattr(sent, name) and list(getattr(got, name)) == list(getattr(sent, name))
    assert type(copy.deepcopy(got)) is type(pickle.loads(pickle.dumps(got))) is RecordDict
    assert got == sent and got.object_id == sent.object_id
    got.metric_records["n"] = MetricRecord({"n": 2})
    del got.config_records["c"]
    assert list(got) == ["a", "m", "n"] and got["n"]["n"] == 2
    with pytest.raises(TypeError):
        got.metric_records["x"] = ConfigRecord()


def test_fresh_records_share_nothing_that_can_be_written_to() -> None:
    sent = RecordDict({"a": ArrayRecord({key: Array(value) for key, value in ARRAYS.items()})})
    sent["c"] = ConfigRecord({"names": ["x"], "n": 1})
    for source in (sent, unpack(pack(sent))):
        ours = fresh(source)
        assert ours == source
        ours["a"]["large"].numpy()[:] = 0
        ours["a"]["scalar"].data = b""
        ours["c"]["names"].append("y")
        del ours["a"]["half"]
        ours["new"] = MetricRecord()
        assert source == sent and list(sent["a"]) == list(ARRAYS) and sent["c"]["names"] == ["x"]
        np.testing.assert_array_equal(sent["a"]["large"].numpy(), ARRAYS["large"])
