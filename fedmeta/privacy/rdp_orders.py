"""The orders at which Renyi curves are known; a curve is epsilon(alpha) at each."""

import numpy as np
import numpy.typing as npt

Curve = npt.NDArray[np.float64]

ORDERS: Curve = np.concatenate(
    [
        1 + np.logspace(-2, 0, 25)[:-1],
        np.arange(2, 12, 0.2),
        np.arange(12, 64),
        np.arange(64, 256, 8),
        2.0 ** np.arange(8, 11),
    ]
).round(6)
"""Orders at which curves are known. Those near 1 serve budgets of 50 and more, those near 1000 budgets of 0.1."""
