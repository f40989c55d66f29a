"""Differential privacy: units, mechanisms, sampling schemes, accountants, and the ledger that says what was spent.

`epsilon(noise_multiplier=1, sampling_rate=.01, steps=1000, delta=1e-5, accountant="prv")` and `noise_multiplier(...)`
are the two calls that most people need. Importing this package loads no torch and no accountant.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedmeta.privacy.accounting import Bound, Verdict, bounds, calibrate, epsilon, noise_multiplier, tightest
    from fedmeta.privacy.distributed.mechanisms import DiscreteGaussian, Skellam
    from fedmeta.privacy.events import Event, Gaussian
    from fedmeta.privacy.schemes import NoAmplification, Poisson, TruncatedPoisson, TwoStage, WithoutReplacement
    from fedmeta.privacy.units import Adjacency, Unit

_HOME = {
    **dict.fromkeys(
        ("Bound", "Verdict", "bounds", "calibrate", "epsilon", "noise_multiplier", "tightest"),
        "fedmeta.privacy.accounting",
    ),
    **dict.fromkeys(("DiscreteGaussian", "Skellam"), "fedmeta.privacy.distributed.mechanisms"),
    **dict.fromkeys(("Event", "Gaussian"), "fedmeta.privacy.events"),
    **dict.fromkeys(
        ("NoAmplification", "Poisson", "TruncatedPoisson", "TwoStage", "WithoutReplacement"),
        "fedmeta.privacy.schemes",
    ),
    **dict.fromkeys(("Adjacency", "Unit"), "fedmeta.privacy.units"),
}

__all__ = [
    "Adjacency",
    "Bound",
    "DiscreteGaussian",
    "Event",
    "Gaussian",
    "NoAmplification",
    "Poisson",
    "Skellam",
    "TruncatedPoisson",
    "TwoStage",
    "Unit",
    "Verdict",
    "WithoutReplacement",
    "bounds",
    "calibrate",
    "epsilon",
    "noise_multiplier",
    "tightest",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'fedmeta.privacy' has no attribute '{name}'")
