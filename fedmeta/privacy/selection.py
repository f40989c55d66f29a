"""The best of many private runs: repeat-and-select with a random number of trials (Papernot and Steinke 2022).

To publish the best of K runs costs more than one run, and much less than all K, where K is drawn from one of these laws
and is not published, and the runs are independent and alike in what they release.
"""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fedmeta.errors import ConfigurationError
from fedmeta.privacy.rdp_orders import ORDERS, Curve

if TYPE_CHECKING:
    from fedmeta.privacy.events import Event


@dataclass(frozen=True)
class NegativeBinomial:
    """K ~ truncated negative binomial: P[K = k] ~ (1 - gamma)^k prod_{l < k} (l + shape) / (l + 1), k >= 1.

    Shape 1 is the geometric law, shape 0 the logarithmic one (Papernot and Steinke 2022, definition 1).

    Args:
        shape: eta, > -1; the smaller, the less it costs, and the more often there are few trials.
        mean: E[K], > 1.

    >>> round(NegativeBinomial(1.0, 10.0).gamma, 6)
    0.1
    """

    shape: float
    mean: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.shape) and self.shape > -1):
            raise ConfigurationError(f"shape = {self.shape} of the law of trials must be > -1")
        if not (math.isfinite(self.mean) and self.mean > 1):
            raise ConfigurationError(f"mean = {self.mean} of the law of trials must be > 1: it draws one at least")

    def __str__(self) -> str:
        kind = {0.0: "logarithmic", 1.0: "geometric"}.get(self.shape, "truncated negative binomial")
        return f"{kind} (shape {self.shape:g}), mean {self.mean:g}"

    @property
    def gamma(self) -> float:
        """The success probability that gives the mean."""
        from scipy.optimize import brentq

        low = 1e-12
        if _mean(self.shape, low) < self.mean:
            raise ConfigurationError(
                f"mean = {self.mean:g} cannot be reached by a law of trials of shape {self.shape:g}: raise the shape"
            )
        return float(brentq(lambda gamma: _mean(self.shape, gamma) - self.mean, low, 1 - 1e-12, xtol=1e-15))

    def probabilities(self, most: int) -> Curve:
        """P[K = 1], ..., P[K = most]."""
        gamma, eta = self.gamma, self.shape
        k = np.arange(1, most + 1, dtype=np.float64)
        if eta == 0:
            return (1 - gamma) ** k / (k * math.log(1 / gamma))
        steps = (k - 1 + eta) / k
        return (1 - gamma) ** k / math.expm1(-eta * math.log(gamma)) * np.cumprod(steps)

    def draw(self, rng: np.random.Generator) -> int:
        """A number of trials, >= 1."""
        wanted, most = rng.random(), 64
        while True:
            reached = np.cumsum(self.probabilities(most))
            if reached[-1] > wanted or most > 1e7:
                return int(np.searchsorted(reached, wanted, side="right")) + 1
            most *= 4

    def curve(self, run: Curve) -> Curve:
        """The Renyi curve at `ORDERS` of the best of K runs, from that of one (Papernot and Steinke 2022, theorem 2).

        epsilon(a) + (1 + eta) ((1 - 1 / b) epsilon(b) + log(1 / gamma) / b) + log E[K] / (a - 1), least over b.
        """
        extra = (1 + self.shape) * ((1 - 1 / ORDERS) * run + math.log(1 / self.gamma) / ORDERS)
        return run + np.min(extra) + math.log(self.mean) / (ORDERS - 1)


@dataclass(frozen=True)
class PoissonTrials:
    """K ~ Poisson: concentrated around its mean, and perhaps 0, in which case nothing is published.

    Args:
        mean: E[K], > 0.
    """

    mean: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and self.mean > 0):
            raise ConfigurationError(f"mean = {self.mean} of the law of trials must be > 0")

    def __str__(self) -> str:
        return f"Poisson, mean {self.mean:g}"

    def draw(self, rng: np.random.Generator) -> int:
        """A number of trials, >= 0."""
        return int(rng.poisson(self.mean))

    def curve(self, run: Curve) -> Curve:
        """The Renyi curve of the best of K runs, from that of one (Papernot and Steinke 2022, theorem 6).

        epsilon(a) + mean delta + log(mean) / (a - 1), where one run is (log(1 + 1 / (a - 1)), delta)-DP.
        """
        deltas = np.array([to_delta(run, math.log1p(1 / (order - 1))) for order in ORDERS])
        return run + self.mean * deltas + math.log(self.mean) / (ORDERS - 1)


Law = NegativeBinomial | PoissonTrials

_LAWS: dict[str, type[Law]] = {"negative-binomial": NegativeBinomial, "poisson": PoissonTrials}


def law_of(text: str, mean: float) -> Law:
    """A law by its name: `poisson`, or the shape of a truncated negative binomial one.

    Raises:
        ConfigurationError: neither, or a mean or shape that it cannot have.

    >>> str(law_of("0.5", 10)), str(law_of("poisson", 10))
    ('truncated negative binomial (shape 0.5), mean 10', 'Poisson, mean 10')
    """
    if text == "poisson":
        return PoissonTrials(float(mean))
    try:
        shape = float(text)
    except ValueError:
        raise ConfigurationError(
            f"'{text}' is no law of the number of trials: give poisson, or the shape of a truncated negative binomial "
            "one, such as 0, 0.5 or 1"
        ) from None
    return NegativeBinomial(shape, float(mean))


@dataclass(frozen=True)
class BestOf:
    """The best of a random number of independent runs, chosen by a score that costs nothing by itself.

    Args:
        law: of the number of runs.
        run: events of one run; an upper bound of every run's.
    """

    law: Law
    run: tuple["Event", ...]
    exactness: ClassVar[str] = "as the single runs"
    analysis: ClassVar[str] = "best of a random number of runs: Papernot and Steinke 2022, theorems 2 and 6"

    def __str__(self) -> str:
        return f"best of K runs, K {self.law}"

    @property
    def noise_multiplier(self) -> float:
        """The least of one run: 0 where one of its releases has no noise."""
        return min((event.mechanism.noise_multiplier for event in self.run), default=math.inf)

    def curve(self, orders: Curve, sensitivity: float) -> Curve:
        """The Renyi curve at `ORDERS`; the events of a run know their own sensitivity."""
        return self.law.curve(run_curve(self.run))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
        kind = next(name for name, cls in _LAWS.items() if type(self.law) is cls)
        return {"law": {"kind": kind, **asdict(self.law)}, "run": [event.to_json() for event in self.run]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "BestOf":
        """The inverse of `to_json`."""
        from fedmeta.privacy.events import Event

        law = dict(data["law"])
        kind = law.pop("kind")
        return cls(_LAWS[kind](**law), tuple(Event.from_json(event) for event in data["run"]))


def run_curve(run: tuple["Event", ...]) -> Curve:
    """The Renyi curve of one run.

    Raises:
        ConfigurationError: an event that has none.
    """
    from fedmeta.privacy.accountants import Rdp
    from fedmeta.privacy.rdp import curve

    total = np.zeros(len(ORDERS))
    for event in run:
        refusal = Rdp().refusal(event)
        if refusal:
            raise ConfigurationError(f"the best of many runs is accounted by RDP, which cannot be here: {refusal}")
        found = curve(event)
        assert found is not None
        total = total + event.count * found
    return total


def to_delta(rdp: Curve, epsilon: float) -> float:
    """The least delta of a curve at `ORDERS` for an epsilon (Canonne, Kamath, Steinke 2020, proposition 12); at most 1.

    >>> to_delta(ORDERS / 2, 10.0) < 1e-9 < to_delta(ORDERS / 2, 1.0) < 1
    True
    """
    known = np.isfinite(rdp)
    if not known.any():
        return 1.0
    a, e = ORDERS[known], rdp[known]
    return min(1.0, float(np.exp(np.min((a - 1) * (e - epsilon) + a * np.log1p(-1 / a) - np.log(a - 1)))))


def _mean(shape: float, gamma: float) -> float:
    if shape == 0:
        return (1 / gamma - 1) / math.log(1 / gamma)
    return -shape * (1 - gamma) / (gamma * math.expm1(shape * math.log(gamma)))
