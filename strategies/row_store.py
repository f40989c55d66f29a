"""Memory for update matrices."""

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor


class RowStore:
    """Memory for update matrices, used again round after round while nobody holds on to a row of the last one.

    A new large array costs as much in page faults as copying the updates into it.
    """

    def __init__(self) -> None:
        self._values: Any = np.empty((0, 0), np.float32)

    def take(self, n: int, size: int) -> Tensor:
        """A float32 matrix `[n, size]` of any values."""
        # Views, numpy's and torch's, hold a reference to the array itself; ours and that of this call are two.
        free = sys.getrefcount(self._values) == 2
        if not free or self._values.shape[1] != size or len(self._values) < n:
            self._values = np.empty((n, size), np.float32)  # NumPy asks for large pages, which torch does not
        return torch.from_numpy(self._values[:n])
