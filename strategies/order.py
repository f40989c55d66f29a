"""Order statistics of every coordinate, over chunks of columns.

Sorted by numpy, whose sort of short contiguous rows of float32 is several times faster than torch's on a CPU.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from strategies.distances import column_chunks

Array = npt.NDArray[Any]


def by_sorted_columns(matrix: Tensor, reduce: Callable[[Array], Array]) -> Tensor:
    """Reduce each coordinate's sorted values to one.

    Args:
        matrix: `[n, D]`.
        reduce: `[c, n]`, ascending along the last axis, to `[c]`.
    """
    found = torch.empty(matrix.shape[1], dtype=matrix.dtype)
    for columns in column_chunks(matrix):
        ordered = np.array(matrix[:, columns].T.numpy(), order="C")  # a copy, which is then sorted in place
        ordered.sort(axis=1)
        found[columns] = torch.from_numpy(reduce(ordered)).to(matrix.dtype)
    return found


def midpoint(ordered: Array) -> Array:
    """The median of sorted values `[c, n]`: the midpoint of the two middle ones where n is even."""
    n = ordered.shape[1]
    return (ordered[:, (n - 1) // 2].astype(np.float64) + ordered[:, n // 2]) / 2
