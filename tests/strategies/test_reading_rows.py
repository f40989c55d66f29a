"""Updates are read to the rows of a matrix whose memory is used again, but never under somebody who holds it."""

import math

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord

from fedmeta.wire import MalformedRecord, read_row, vector_record
from strategies.replies import RowStore


def test_memory_is_used_again_once_nobody_holds_a_row() -> None:
    store = RowStore()
    first = store.take(4, 10)
    place = first.data_ptr()
    row = first[2]
    row.fill_(7.0)
    del first
    second = store.take(4, 10)
    assert second.data_ptr() != place
    assert torch.equal(row, torch.full((10,), 7.0))
    where = second.data_ptr()
    del second
    assert store.take(3, 10).data_ptr() == where, "fewer rows fit into what is there"
    assert store.take(5, 10).shape == (5, 10)
    assert store.take(2, 11).shape == (2, 11)


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25, 0.0])
def test_the_norm_of_a_row_is_right_also_where_float32_cannot_square(scale: float) -> None:
    values = torch.from_numpy(np.random.default_rng(0).standard_normal(1000)) * scale
    row = torch.empty(1000)
    norm = read_row(vector_record(values), row)
    assert torch.equal(row, values.float())
    assert norm == pytest.approx(float(values.norm()), rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_is_refused_with_the_count(bad: float) -> None:
    values = torch.ones(100)
    values[[3, 7]] = bad
    with pytest.raises(MalformedRecord, match="2 values of 100 are NaN or infinite"):
        read_row(vector_record(values), torch.empty(100))


def test_a_row_of_another_length_is_refused() -> None:
    record: ArrayRecord = vector_record(torch.ones(3))
    with pytest.raises(MalformedRecord, match=r"\(3,\) where float32 \(4,\)"):
        read_row(record, torch.empty(4))
