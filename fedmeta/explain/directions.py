"""A map of clients: principal components of the directions of their updates."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DirectionMap:
    """Where clients lie.

    Attributes:
        points: `[n, components]`, coordinates of the unit vectors along the updates, about their mean.
        explained: `[components]`, shares of the variance of these directions.
    """

    points: Tensor
    explained: Tensor


def direction_map(updates: Tensor, components: int = 2) -> DirectionMap:
    """Principal components of the rows' directions (Pearson 1901), by the Gram matrix: cheap at any D.

    Rows are scaled to unit length first, so that a long update does not make the map its own; a zero row stays
    zero. A component's sign is chosen so that its largest coordinate is positive.

    Args:
        updates: `[n, D]`, finite, n >= 2.
        components: at most n - 1 carry anything; the others are zero.

    Raises:
        ValueError: fewer than two rows, or values that are not finite.

    >>> direction_map(torch.tensor([[2.0, 0.0], [-5.0, 0.0]])).points[:, 0].round(decimals=6).tolist()
    [1.0, -1.0]
    """
    if updates.dim() != 2 or len(updates) < 2 or not torch.isfinite(updates).all():
        raise ValueError(f"a map needs two rows or more of finite values, not {list(updates.shape)}")
    rows = torch.nn.functional.normalize(updates.double(), dim=1)
    rows = rows - rows.mean(dim=0)
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    # What is left by rounding alone is no component.
    values = torch.where(values > 1e-12 * values.sum(), values, 0.0)
    points = torch.zeros(len(rows), components, dtype=torch.float64)
    shares = torch.zeros(components, dtype=torch.float64)
    kept = min(components, len(rows))
    points[:, :kept] = vectors[:, :kept] * values[:kept].sqrt()
    signs = points.gather(0, points.abs().argmax(dim=0, keepdim=True)).sign()
    if values.sum() > 0:
        shares[:kept] = values[:kept] / values.sum()
    return DirectionMap(points * torch.where(signs == 0, 1.0, signs), shares)
