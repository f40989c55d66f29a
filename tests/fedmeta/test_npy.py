"""The bytes are numpy's own, and reading copies nothing."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from fedmeta import npy


@given(arrays(np.float32, array_shapes(min_dims=0, max_dims=3, min_side=0)))
def test_written_as_numpy_writes_it_and_read_back(array: np.ndarray) -> None:
    stream = io.BytesIO()
    np.save(stream, array)
    assert npy.encode(array) == stream.getvalue()
    found = npy.view(memoryview(stream.getvalue()))
    assert found is not None and found.dtype == array.dtype and found.shape == array.shape
    np.testing.assert_array_equal(found, array)
    assert not found.flags.writeable and not found.flags.owndata


def test_order_is_kept_and_what_is_no_plain_file_is_told() -> None:
    stream = io.BytesIO()
    np.save(stream, np.asfortranarray(np.arange(6).reshape(2, 3)))
    found = npy.view(memoryview(stream.getvalue()))
    assert found is not None and found.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert npy.view(memoryview(b"")) is None and npy.view(memoryview(b"\x93NUMPY nothing of the kind")) is None
    stream = io.BytesIO()
    np.save(stream, np.array([{}]), allow_pickle=True)
    assert npy.view(memoryview(stream.getvalue())) is None
    with pytest.raises(ValueError, match="buffer"):
        npy.view(memoryview(npy.encode(np.ones(9))[:-4]))
