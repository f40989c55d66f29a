"""The weighted mean against numpy, and its degenerate weights."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedmeta.errors import ConfigurationError
from strategies import make_aggregator
from strategies.aggregation import RoundContext

matrices = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(-1e3, 1e3, width=32)
)


@given(matrices, st.data())
def test_equals_numpy(matrix: np.ndarray, data: st.DataObject) -> None:
    weights = data.draw(hnp.arrays(np.float64, matrix.shape[0], elements=st.floats(0.1, 10)))
    updates = torch.from_numpy(matrix.copy())
    found = make_aggregator("mean")(updates, RoundContext(weights=torch.from_numpy(weights)))
    expected = np.average(matrix.astype(np.float64), axis=0, weights=weights)
    assert np.allclose(found.vector.numpy(), expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(updates, torch.from_numpy(matrix)), "updates are never modified"


def test_zero_weights() -> None:
    updates = torch.tensor([[1.0], [2.0], [3.0]])
    assert make_aggregator("mean")(updates, RoundContext(weights=torch.tensor([0.0, 0.0, 4.0]))).vector.item() == 3.0
    with pytest.raises(ValueError, match="sum to zero"):
        make_aggregator("mean")(updates, RoundContext(weights=torch.zeros(3)))


def test_unknown_names_and_parameters_are_errors() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'mean'"):
        make_aggregator("meen")
    with pytest.raises(ConfigurationError, match=r"f is not a parameter of aggregator"):
        make_aggregator("mean", f=2)
