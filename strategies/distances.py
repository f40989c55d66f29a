"""Squared distances between the rows of an update matrix, in float64, without a float64 copy of it.

The Gram matrix is summed over chunks of columns, of rows from which a central row was subtracted. What is left of a
distance after the subtraction `g_ii + g_jj - 2 g_ij` has lost digits where two rows are close to each other and far
from the centre (identical rows of colluding clients, for one): such groups are computed again around one of their own.
"""

from collections.abc import Iterator

import numpy as np
import torch
from scipy.linalg.blas import dsyrk
from scipy.sparse.csgraph import connected_components
from torch import Tensor

CHUNK = 2**17
"""Elements of a chunk of columns: as float64 they fit a core's cache."""

LOST = 1e-6
"""A squared distance below this share of the squared norms has lost six of sixteen digits, and is computed again."""

SAMPLE = 128
"""Columns by which a central row is chosen."""


def column_chunks(matrix: Tensor) -> Iterator[slice]:
    """Slices of columns of about `CHUNK` elements each."""
    n, size = matrix.shape
    step = max(64, CHUNK // max(n, 1))
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def gram(matrix: Tensor, centre: Tensor | None = None) -> Tensor:
    """`[n, n]` float64 dot products of rows `[n, D]`, after `centre` (`[D]`) was subtracted from each."""
    n = len(matrix)
    upper_half = np.zeros((n, n), order="F")
    room: Tensor | None = None
    for columns in column_chunks(matrix):
        width = columns.stop - columns.start
        if room is None or width != room.shape[1]:
            room = torch.empty(n, width, dtype=torch.float64)  # made once: new memory costs as much as the products
        room.copy_(matrix[:, columns])
        if centre is not None:
            room -= centre[columns].to(torch.float64)
        # BLAS' product of a matrix with itself, which torch has not: half the work, and no copy of rows or sum.
        upper_half = dsyrk(1.0, room.numpy().T, beta=1.0, c=upper_half, trans=1, overwrite_c=1)
    found = torch.from_numpy(upper_half)
    upper = found.triu(1)
    return upper + upper.T + torch.diag(found.diagonal())


def squared_distances(matrix: Tensor) -> Tensor:
    """`[n, n]` float64 squared Euclidean distances between rows `[n, D]`; identical rows are at distance 0 exactly.

    >>> squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    tensor([[ 0., 25.],
            [25.,  0.]], dtype=torch.float64)
    """
    n = len(matrix)
    found = torch.zeros(n, n, dtype=torch.float64)
    _fill(found, matrix, torch.arange(n), _central(matrix))
    return _alike(found)


def mixed_squared_distances(squared: Tensor, weights: Tensor) -> Tensor:
    """Squared distances between mixtures of points, from those between the points.

    For c with sum 0, ||sum_k c_k u_k||^2 = -1/2 sum_kl c_k c_l d_kl^2; here c is the difference of two rows of weights.

    Args:
        squared: `[n, n]` between the points.
        weights: `[m, n]`, whose rows all have the same sum.
    """
    m = len(weights)
    found = torch.zeros(m, m, dtype=torch.float64)
    for row in range(m):
        difference = weights[row] - weights[row + 1 :]
        found[row, row + 1 :] = -0.5 * ((difference @ squared) * difference).sum(dim=1)
    return (found + found.T).clamp_min(0.0)


def _central(matrix: Tensor) -> int:
    """A row among most of the others, judged by a few columns: outliers may be far away, and it is not one of them."""
    step = max(1, matrix.shape[1] // SAMPLE)
    sample = matrix[:, ::step].to(torch.float64)
    rough = torch.cdist(sample, sample, compute_mode="donot_use_mm_for_euclid_dist")
    return int(rough.median(dim=1).values.argmin())


def _fill(found: Tensor, matrix: Tensor, members: Tensor, centre: int) -> None:
    rows = matrix if len(members) == len(matrix) else matrix[members]
    products = gram(rows, matrix[centre])
    norms = products.diagonal()
    squared = (norms[:, None] + norms[None, :] - 2 * products).clamp_min(0.0).fill_diagonal_(0.0)
    found[members[:, None], members[None, :]] = squared
    largest = torch.maximum(norms[:, None], norms[None, :])
    # The centre has norm 0, so it is in no group, and every group is smaller than the one it comes from.
    suspect = (squared <= LOST * largest) & (torch.minimum(norms[:, None], norms[None, :]) > 0)
    if not suspect.fill_diagonal_(False).any():
        return
    count, labels = connected_components(suspect.numpy(), directed=False)
    groups = torch.from_numpy(labels)
    for label in range(count):
        group = members[groups == label]
        if len(group) > 1:
            _fill(found, matrix, group, int(group[0]))


def _alike(squared: Tensor) -> Tensor:
    """Identical rows get the very same distances, so that their scores tie exactly."""
    twins = (squared == 0).to(torch.int8).argmax(dim=1)  # the lowest index at distance 0: itself where it has no twin
    return squared[twins][:, twins]
