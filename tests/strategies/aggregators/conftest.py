"""Every rule with parameters that fit twelve rows, and all that it may ask of a round."""

from collections.abc import Callable

import pytest
import torch

from fedmeta.params import Entry, ParamSpec
from strategies import AGGREGATORS, make_aggregator
from strategies.aggregation import Aggregator, Probe, RoundContext

ROWS, SIZE = 12, 40
"""Of the matrices here; the last layer below has 4 outputs, 7 inputs and biases."""

PARAMETERS = {
    "trimmed_mean": {"f": 2},
    "krum": {"f": 2},
    "multi_krum": {"f": 2},
    "bulyan": {"f": 2},
    "dnc": {"f": 2},
    "rlr": {"threshold": 3},
    "flame": {"noise_factor": 0.0},
    "deepsight": {"head": ("head.weight", "head.bias"), "samples": 200, "seeds": 2},
    "signguard": {"fraction": 1.0},
}
SPEC = ParamSpec(
    (Entry("body", (8,), "shared"), Entry("head.weight", (4, 7), "shared"), Entry("head.bias", (4,), "shared"))
)


def probabilities(shared: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """A linear model: its last layer on inputs of seven numbers."""
    entries = SPEC.unflatten(shared)
    return (inputs.to(shared.dtype) @ entries["head.weight"].T + entries["head.bias"]).softmax(dim=1)


def everything(size: int = SIZE, dtype: torch.dtype = torch.float64) -> RoundContext:
    """A round that knows all that a rule may ask; model and root update are fixed."""
    draws = torch.Generator().manual_seed(5)
    model = torch.randn(size, generator=draws, dtype=torch.float64).to(dtype)
    return RoundContext(
        model=model,
        root_update=torch.linspace(1.0, 2.0, size, dtype=torch.float64).to(dtype),
        spec=SPEC,
        probe=Probe((7,), probabilities, fixed_slots=True),
    )


def around(n: int = ROWS, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    """Rows around a common direction, float64."""
    draws = torch.Generator().manual_seed(seed)
    return torch.linspace(1.0, 2.0, size) + 0.3 * torch.randn(n, size, generator=draws, dtype=torch.float64)


@pytest.fixture
def context() -> Callable[..., RoundContext]:
    """Makes contexts that know everything."""
    return everything


@pytest.fixture
def honest() -> Callable[..., torch.Tensor]:
    """Makes honest updates."""
    return around


@pytest.fixture
def make_rule() -> Callable[[str], Aggregator]:
    """Makes a rule by its name, with parameters that fit twelve rows."""
    return lambda name: make_aggregator(name, **PARAMETERS.get(name, {}))


@pytest.fixture(params=sorted(AGGREGATORS.entries()))
def name(request: pytest.FixtureRequest) -> str:
    """Every registered rule."""
    return str(request.param)


@pytest.fixture
def rule(name: str, make_rule: Callable[[str], Aggregator]) -> Aggregator:
    """The rule of that name."""
    return make_rule(name)
