"""How updates become the next global model: aggregators, samplers, and the strategy that drives a round."""

from typing import TYPE_CHECKING, Any

from fedmeta.registry import Entry, Registry

if TYPE_CHECKING:
    from strategies.aggregation import Aggregator
    from strategies.preaggregation import PreAggregator

__all__ = ["AGGREGATORS", "COMPONENTS", "PREAGGREGATORS", "SAMPLERS", "make_aggregator", "make_preaggregator"]


def _rule(target: str, summary: str, source: str) -> Entry:
    return Entry(f"strategies.aggregators.{target}", summary, source)


def _mixer(target: str, summary: str, source: str) -> Entry:
    return Entry(f"strategies.preaggregators.{target}", summary, source)


AGGREGATORS = Registry(
    "aggregators",
    {
        "mean": _rule("mean:Mean", "the weighted mean", "McMahan et al. 2017, algorithm 1"),
        "median": _rule("median:Median", "the median of every coordinate", "Yin et al. 2018, definition 1"),
        "trimmed_mean": _rule(
            "trimmed_mean:TrimmedMean", "the mean without the f lowest and highest values", "Yin et al. 2018, def. 2"
        ),
        "geometric_median": _rule(
            "geometric_median:GeometricMedian", "the least sum of distances to rows", "Pillutla et al. 2022: RFA"
        ),
        "krum": _rule(
            "krum:Krum", "the update nearest to its n - f - 2 nearest others", "Blanchard et al. 2017, sec. 4"
        ),
        "multi_krum": _rule("krum:MultiKrum", "the mean of the best updates by Krum", "Blanchard et al. 2017, sec. 4"),
        "bulyan": _rule("bulyan:Bulyan", "values near the median among Krum's choice", "El Mhamdi et al. 2018, alg. 2"),
        "centered_clipping": _rule(
            "centered_clipping:CenteredClipping", "clipped steps from the last result", "Karimireddy et al. 2021, eq. 6"
        ),
        "norm_bound": _rule("norm_bound:NormBound", "clipped mean with weak noise", "Sun et al. 2019, section 5"),
        "rlr": _rule("rlr:RLR", "the mean, reversed where signs disagree", "Ozdayi et al. 2021, equation 2"),
        "dnc": _rule("dnc:DnC", "drops what stands out spectrally", "Shejwalkar & Houmansadr 2021, algorithm 2"),
        "foolsgold": _rule("foolsgold:FoolsGold", "weighs down alike histories", "Fung et al. 2020, algorithm 1"),
        "fltrust": _rule("fltrust:FLTrust", "weighs by the server's own update", "Cao et al. 2021, algorithm 2"),
        "signguard": _rule("signguard:SignGuard", "filters by norm and shares of signs", "Xu et al. 2022, algorithm 2"),
        "flame": _rule("flame:FLAME", "majority cluster of directions, clip, noise", "Nguyen et al. 2022, algorithm 1"),
        "deepsight": _rule(
            "deepsight:DeepSight", "clusters by the last layer's updates", "Rieger et al. 2022, sec. IV"
        ),
        "fldetector": _rule(
            "fldetector:FLDetector", "flags unpredictable clients", "Zhang et al. 2022, algorithms 1-3"
        ),
        "alignins": _rule(
            "alignins:AlignIns", "filters by direction and principal signs", "Xu et al. 2025, algorithm 1"
        ),
    },
)

PREAGGREGATORS = Registry(
    "preaggregators",
    {
        "nnm": _mixer("nnm:NNM", "each row becomes the mean of its n - f nearest", "Allouah et al. 2023, algorithm 2"),
        "bucketing": _mixer("bucketing:Bucketing", "means of random buckets", "Karimireddy et al. 2022, algorithm 1"),
        "arc": _mixer("arc:ARC", "clips the longest rows to the longest other", "Allouah et al. 2025, algorithm 2"),
        "clipping": _mixer("clipping:Clipping", "clips every row to one norm", ""),
    },
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

COMPONENTS: dict[str, Registry] = {
    "server.aggregator": AGGREGATORS,
    "server.preaggregators": PREAGGREGATORS,
    "server.sampling": SAMPLERS,
}
"""Places in an experiment that name a component of this package."""


def make_aggregator(name: str, **parameters: Any) -> "Aggregator":
    """Construct an aggregator: `make_aggregator("krum", f=2)(updates) -> Aggregate`.

    Raises:
        ConfigurationError: unknown name or parameter, or a value out of bounds.
    """
    return AGGREGATORS.make(name, **parameters)


def make_preaggregator(name: str, **parameters: Any) -> "PreAggregator":
    """Construct a pre-aggregator: `make_preaggregator("nnm", f=2)(updates) -> updates`.

    Raises:
        ConfigurationError: unknown name or parameter, or a value out of bounds.
    """
    return PREAGGREGATORS.make(name, **parameters)
