"""Hessian-vector products from past steps (Byrd, Nocedal & Schnabel 1994, equation 3.5): the compact form of L-BFGS."""

import torch
from torch import Tensor


def hessian_times(steps: Tensor, changes: Tensor, vector: Tensor) -> Tensor:
    """B v, where B is the BFGS approximation of the Hessian from (step, change of gradient) pairs.

    B = sigma I - [sigma S, Y] [[sigma S'S, L], [L', -D]]^-1 [sigma S, Y]', sigma = s'y / s's of the last pair,
    L the strictly lower and D the diagonal part of S'Y.
    On a quadratic B s = y holds exactly for the last step, and for all steps that are conjugate to each other. Pairs
    without positive curvature (s'y <= 0) are left out, as L-BFGS needs.

    Args:
        steps: `[k, D]` differences of parameters, the oldest first.
        changes: `[k, D]` differences of gradients.
        vector: `[D]`.

    Returns:
        `[D]` float64; zero where there is no usable pair.
    """
    s, y, v = (tensor.to(torch.float64) for tensor in (steps, changes, vector))
    curvature = (s * y).sum(dim=1)
    usable = curvature > 1e-12 * s.norm(dim=1) * y.norm(dim=1)
    s, y = s[usable], y[usable]
    if len(s) == 0:
        return torch.zeros_like(v)
    products = s @ y.T
    sigma = products[-1, -1] / (s[-1] @ s[-1])
    lower = products.tril(-1)
    middle = torch.cat(
        [torch.cat([sigma * (s @ s.T), lower], dim=1), torch.cat([lower.T, -torch.diag(products.diagonal())], dim=1)]
    )
    right = torch.cat([sigma * (s @ v), y @ v])
    # Parallel steps make the middle singular, though what it is applied to lies in its range.
    left = torch.linalg.pinv(middle, hermitian=True) @ right
    return sigma * v - sigma * (left[: len(s)] @ s) - left[len(s) :] @ y
