"""Adversarial meta-training: a client's outer loss. A new objective is one file here and one line below."""

from typing import TYPE_CHECKING, Any

from fedmeta.registry import Entry, Registry

if TYPE_CHECKING:
    from fedmeta.adversarial.base import Objective

__all__ = ["OBJECTIVES", "make_objective"]

OBJECTIVES = Registry(
    "objectives",
    {
        "none": Entry("fedmeta.adversarial.base:Plain", "the learner's own outer loss"),
        "aq": Entry("fedmeta.adversarial.aq:AQ", "attacked queries in the outer loss", "Goldblum et al. 2020"),
        "adml": Entry(
            "fedmeta.adversarial.adml:ADML",
            "attacked supports for clean queries, clean supports for attacked queries",
            "Yin et al. 2018, algorithm 1",
        ),
        "rmaml": Entry(
            "fedmeta.adversarial.rmaml:RMAML",
            "clean and attacked queries in the outer loss",
            "Wang et al. 2021, robustness in the outer loop only",
        ),
        "trades": Entry(
            "fedmeta.adversarial.trades:Trades",
            "clean queries, and how far an attack moves their probabilities",
            "Zhang et al. 2019, equation 5",
        ),
    },
)


def make_objective(name: str, **parameters: Any) -> "Objective":
    """Construct an objective: `make_objective("aq", eps=0.1)`.

    Raises:
        ConfigurationError: unknown name or parameter, or a value out of bounds.
    """
    found: Objective = OBJECTIVES.make(name, where="client.adversarial", **parameters)
    return found
