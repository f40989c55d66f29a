"""The best of a random number of private runs: the specification's figures, an exact case, the laws, the ledger."""

from pathlib import Path

import numpy as np
import pytest

from fedmeta.errors import ConfigurationError
from fedmeta.privacy.accounting import tightest
from fedmeta.privacy.events import Event, Gaussian
from fedmeta.privacy.ledger import Entry, Ledger
from fedmeta.privacy.rdp import to_epsilon
from fedmeta.privacy.rdp_orders import ORDERS
from fedmeta.privacy.schemes import NoAmplification, Poisson, TruncatedPoisson
from fedmeta.privacy.selection import BestOf, law_of, to_delta
from fedmeta.privacy.units import Adjacency, Unit

RUN = (Event(Gaussian(1.0), Poisson(0.01), count=1000),)
LAWS = ["0", "0.5", "1", "poisson"]
FIGURES = {10: ([3.52, 3.83, 4.10, 4.33], 6.71), 30: ([3.91, 4.31, 4.69, 8.14], 12.74)}


def best(law: str, mean: float) -> Event:
    return Event(BestOf(law_of(law, mean), RUN), NoAmplification(), Adjacency.ADD_REMOVE)


@pytest.mark.parametrize("mean", FIGURES)
def test_the_figures_of_the_specification(mean: int) -> None:
    """z = 1, q = .01, 1000 steps, delta 1e-5: every law below the composition of that many runs, one run below all."""
    selected, composed = FIGURES[mean]
    found = [tightest([best(law, mean)], 1e-5).epsilon for law in LAWS]
    assert found == pytest.approx(selected, abs=0.005)
    assert tightest([*RUN] * mean, 1e-5, "rdp").epsilon == pytest.approx(composed, abs=0.005)
    assert tightest(RUN, 1e-5, "rdp").epsilon < min(found) and max(found) < composed


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("epsilon", [0.2, 1.0])
def test_the_bound_holds_where_the_divergence_is_known(law: str, epsilon: float) -> None:
    """A run answers good or bad by randomised response; the best of K is bad where all K are (Poisson: or none was)."""
    known = law_of(law, 4)
    good = np.array([1.0, np.exp(epsilon)]) / (1 + np.exp(epsilon))
    if law == "poisson":
        all_bad = np.exp(-4 * good)
    else:
        all_bad = (known.probabilities(4000) * (1 - good)[:, None] ** np.arange(1, 4001)).sum(axis=1)
    p, q = np.stack([all_bad, 1 - all_bad])[:, [0, 1]].T
    run_p, run_q = np.stack([1 - good, good]).T

    def divergence(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        a = ORDERS[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            return np.log((one**a * other ** (1 - a)).sum(axis=1)) / (ORDERS - 1)

    run = np.maximum(divergence(run_p, run_q), divergence(run_q, run_p))
    exact = np.maximum(divergence(p, q), divergence(q, p))
    usable = np.isfinite(run) & np.isfinite(exact) & (ORDERS < 100)
    bound = known.curve(np.where(np.isfinite(run), run, epsilon))
    assert (exact[usable] <= bound[usable] + 1e-9).all()


@pytest.mark.parametrize("law", ["-0.5", "0", "0.5", "1"])
def test_the_law_of_the_number_of_trials(law: str) -> None:
    known = law_of(law, 5)
    k, probabilities = np.arange(1, 5001), known.probabilities(5000)
    assert probabilities.sum() == pytest.approx(1) and (k * probabilities).sum() == pytest.approx(5)
    if law == "1":
        assert probabilities[:3] == pytest.approx([0.2, 0.2 * 0.8, 0.2 * 0.64])
    rng = np.random.default_rng(0)
    drawn = np.bincount([known.draw(rng) for _ in range(4000)], minlength=5)
    assert drawn[0] == 0 and drawn[1:5] / 4000 == pytest.approx(probabilities[:4], abs=0.03)


def test_delta_is_the_inverse_of_epsilon() -> None:
    """A plain Gaussian's curve there and back: the two conversions are of the same kind, and neither is below truth."""
    curve = ORDERS / 2
    assert to_delta(curve, to_epsilon(curve, 1e-5)) == pytest.approx(1e-5, rel=1e-6)
    assert to_delta(curve, 4.3772) > 1e-5


def test_a_ledger_holds_it_and_reads_it_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "privacy.jsonl")
    ledger.reserve([Entry(1, Unit.CLIENT, best("0.5", 10))])
    again = Ledger(tmp_path / "privacy.jsonl")
    assert again.entries == ledger.entries
    bound = tightest(again.events(Unit.CLIENT), 1e-5)
    assert bound.accountant == "rdp" and bound.epsilon == pytest.approx(3.83, abs=0.005)
    # The same model trained once more with what was found costs one run on top.
    assert tightest([*again.events(Unit.CLIENT), *RUN], 1e-5).epsilon > bound.epsilon


def test_what_cannot_be_accounted_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no law of the number of trials: give poisson"):
        law_of("binomial", 3)
    with pytest.raises(ConfigurationError, match=r"mean = 1.0 .* must be > 1"):
        law_of("1", 1)
    with pytest.raises(ConfigurationError, match=r"shape = -1.0 .* must be > -1"):
        law_of("-1", 3)
    capped = BestOf(law_of("1", 3), (Event(Gaussian(1.0), TruncatedPoisson(100, 0.1, 20)),))
    with pytest.raises(ConfigurationError, match="accounted by RDP, which cannot be here"):
        tightest([Event(capped, NoAmplification(), Adjacency.ADD_REMOVE)], 1e-5)
    free = BestOf(law_of("1", 3), (Event(Gaussian(0.0), NoAmplification()),))
    assert tightest([Event(free, NoAmplification())], 1e-5).epsilon == float("inf")
