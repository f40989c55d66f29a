"""How updates become the next global model: aggregators, samplers, and the strategy that drives a round."""

from typing import TYPE_CHECKING, Any

from fedmeta.registry import Entry, Registry

if TYPE_CHECKING:
    from strategies.aggregation import Aggregator

__all__ = ["AGGREGATORS", "COMPONENTS", "SAMPLERS", "make_aggregator"]

AGGREGATORS = Registry(
    "aggregators",
    {"mean": Entry("strategies.aggregators.mean:Mean", "the weighted mean", "McMahan et al. 2017, algorithm 1")},
)

SAMPLERS = Registry(
    "samplers",
    {
        "fixed": Entry("strategies.sampling:FixedSize", "so many clients a round, without replacement"),
        "poisson": Entry("strategies.sampling:Poisson", "each client by its own coin; rounds may be empty"),
        "capped_poisson": Entry(
            "strategies.sampling:CappedPoisson", "Poisson, cut to a random `cap` clients where more come"
        ),
    },
)

COMPONENTS: dict[str, Registry] = {"server.aggregator": AGGREGATORS, "server.sampling": SAMPLERS}
"""Places in an experiment that name a component of this package."""


def make_aggregator(name: str, **parameters: Any) -> "Aggregator":
    """Construct an aggregator: `make_aggregator("mean")(updates) -> Aggregate`.

    Raises:
        ConfigurationError: unknown name or parameter, or a value out of bounds.
    """
    return AGGREGATORS.make(name, **parameters)
