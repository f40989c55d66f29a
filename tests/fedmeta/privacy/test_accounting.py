"""Accounting against dp-accounting, the specification's worked numbers, and the properties any accounting must have."""

import importlib.util
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmeta.errors import ConfigurationError
from fedmeta.privacy import (
    Adjacency,
    Event,
    Gaussian,
    NoAmplification,
    Poisson,
    TruncatedPoisson,
    TwoStage,
    WithoutReplacement,
    bounds,
    calibrate,
    epsilon,
    noise_multiplier,
    tightest,
)
from fedmeta.privacy.accounting import check_delta, contents_epsilon
from fedmeta.privacy.rdp import ORDERS, to_epsilon, two_stage

# Printed by reference.py beside this file, with dp-accounting 0.6.0: kind, z, shape, steps, delta, epsilon.
REFERENCE = [
    ("poisson", 1.0, 1.0, 1, 1e-05, 4.377178),
    ("poisson", 1.0, 0.01, 1000, 1e-05, 1.828244),
    ("poisson", 2.0, 0.05, 500, 1e-05, 2.532034),
    ("poisson", 0.7, 0.005, 2000, 1e-05, 3.174787),
    ("poisson", 4.0, 0.1, 1000, 1e-06, 3.868838),
    ("poisson", 1.5, 0.02, 300, 1e-05, 1.056460),
    ("poisson", 0.9, 0.001, 10000, 1e-06, 0.687398),
    ("poisson", 10.0, 0.5, 200, 1e-05, 2.967774),
    ("poisson", 3.0, 1.0, 20, 1e-05, 6.999227),
    ("poisson", 20.0, 1.0, 500, 0.001, 3.605056),
    ("poisson", 0.8, 0.05, 100, 0.0001, 4.709057),
    ("poisson", 1.1, 0.25, 50, 1e-05, 10.796578),
    ("poisson", 6.0, 0.2, 3000, 1e-05, 9.042392),
    ("poisson", 0.5, 0.01, 100, 1e-05, 6.476210),
    ("poisson", 2.5, 0.3, 10, 1e-08, 2.589814),
    ("poisson", 1.0, 0.1, 1, 1e-05, 1.684544),
    ("poisson", 1.2, 0.004, 5000, 1e-05, 1.100073),
    ("poisson", 5.0, 0.9, 40, 1e-05, 5.125667),
    ("without-replacement", 2.0, (1200, 32), 2000, 0.0001, 15.541140),
    ("without-replacement", 4.0, (100, 10), 100, 0.001, 3.984505),
    ("without-replacement", 8.0, (1000, 50), 500, 1e-05, 2.559742),
    ("without-replacement", 3.0, (50, 50), 10, 0.001, 9.012422),
    ("without-replacement", 10.0, (20, 5), 200, 0.001, 5.609851),
    ("without-replacement", 2.0, (10000, 10), 1000, 1e-06, 0.895207),
    ("without-replacement", 30.0, (200, 100), 1000, 0.0001, 10.416175),
    ("truncated-poisson", 1.0, (1000, 0.05, 75), 200, 1e-05, 5.229271),
    ("truncated-poisson", 1.0, (1000, 0.05, 60), 200, 1e-05, 11.008489),
    ("truncated-poisson", 1.0, (1000, 0.05, 50), 200, 1e-05, 19.302487),
]

HAS_PLD = importlib.util.find_spec("dp_accounting") is not None
needs_pld = pytest.mark.skipif(not HAS_PLD, reason="dp-accounting is not installed: pip install 'fedmeta[accounting]'")


def event(kind, z, shape, steps):
    scheme = {
        "poisson": lambda: Poisson(shape),
        "without-replacement": lambda: WithoutReplacement(*shape),
        "truncated-poisson": lambda: TruncatedPoisson(*shape),
    }[kind]()
    return Event(Gaussian(z), scheme, count=steps)


@pytest.mark.parametrize("row", [row for row in REFERENCE if row[0] == "poisson"], ids=str)
def test_poisson_agrees_with_dp_accounting(row):
    kind, z, shape, steps, delta, reference = row
    renyi, fourier = (tightest([event(kind, z, shape, steps)], delta, name).epsilon for name in ("rdp", "prv"))
    assert reference - 0.01 <= fourier <= reference + 0.021, "PRV gives the upper end of an interval of 0.01"
    assert fourier - 0.01 <= renyi <= 2 * reference
    assert reference - 0.01 <= min(renyi, fourier) <= 1.02 * renyi


@pytest.mark.parametrize("row", [row for row in REFERENCE if row[0] == "without-replacement"], ids=str)
def test_without_replacement_agrees_with_dp_accounting(row):
    kind, z, shape, steps, delta, reference = row
    assert tightest([event(kind, z, shape, steps)], delta).epsilon == pytest.approx(reference, rel=0.01)


@needs_pld
@pytest.mark.parametrize("row", [row for row in REFERENCE if row[0] != "without-replacement"], ids=str)
def test_pld_is_dp_accounting(row):
    kind, z, shape, steps, delta, reference = row
    assert tightest([event(kind, z, shape, steps)], delta, "pld").epsilon == pytest.approx(reference, abs=1e-5)


def test_capped_draws_without_pld_are_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    capped = Event(Gaussian(1.0), TruncatedPoisson(1000, 0.05, 75), count=200)
    with pytest.raises(ConfigurationError, match=r"RDP has no valid bound for capped.*fedmeta\[accounting\]"):
        tightest([capped], 1e-5)


def test_clients_then_tasks():
    """q_c = .1, q_t = .2, z = 1, 500 rounds: 12.6 at integer orders, where the product rate would claim 3.15."""
    found = tightest([Event(Gaussian(1.0), TwoStage(0.1, 0.2), count=500)], 1e-5)
    assert found.accountant == "rdp" and 11.5 < found.epsilon < 12.6
    whole = ORDERS.round() == ORDERS
    inner = np.array(
        [
            _log_moment_of_poisson(0.2, 1.0, int(a)) / (a - 1) if w else np.inf
            for a, w in zip(ORDERS, whole, strict=True)
        ]
    )
    with np.errstate(invalid="ignore"):
        outer = np.where(whole, two_stage(np.where(whole, inner, 1.0), 0.1), np.inf)
    assert to_epsilon(500 * outer, 1e-5) == pytest.approx(12.6, abs=0.05)
    assert to_epsilon(500 * inner, 1e-5) == pytest.approx(43.4, abs=0.05)
    assert epsilon(1.0, 0.02, 500, 1e-5, "rdp") == pytest.approx(3.15, abs=0.01)


def _log_moment_of_poisson(rate, z, order):
    """Mironov et al. 2019, section 3.3: the binomial sum, without Opacus."""
    terms = [
        math.lgamma(order + 1) - math.lgamma(i + 1) - math.lgamma(order - i + 1)
        + i * math.log(rate) + (order - i) * math.log1p(-rate) + i * (i - 1) / (2 * z**2)
        for i in range(order + 1)
    ]  # fmt: skip
    return float(np.logaddexp.reduce(terms))


def test_two_stage_limits():
    certain = tightest([Event(Gaussian(2.0), TwoStage(1.0, 0.1, steps=3), count=20)], 1e-5, "rdp").epsilon
    assert certain == pytest.approx(epsilon(2.0, 0.1, 60, 1e-5, "rdp"), rel=1e-9), (
        "no coin of the client's: 3 steps a round"
    )
    rare = tightest([Event(Gaussian(2.0), TwoStage(0.01, 0.1, steps=3), count=20)], 1e-5, "rdp").epsilon
    assert rare < 0.5 * certain


def test_worked_numbers():
    few_shot = Event(Gaussian(20.0), NoAmplification(), Adjacency.ADD_REMOVE, count=500)
    assert tightest([few_shot], 1e-3).epsilon == pytest.approx(3.61, abs=0.01)
    assert epsilon(1, 1, 1, 1e-5, "prv") == pytest.approx(4.3772, abs=0.011)
    assert epsilon(1, 1, 1, 1e-5, "rdp") == pytest.approx(4.7285, abs=1e-3)
    assert epsilon(1, 0.01, 1000, 1e-5, "rdp") == pytest.approx(2.1014, abs=1e-3)
    assert epsilon(2, 32 / 1200, 2000, 1e-4, "prv") == pytest.approx(2.2797, abs=0.011)
    assert epsilon(2, 32 / 1200, 2000, 1e-4, "rdp") == pytest.approx(2.5273, abs=1e-3)


def test_replacing_costs_twice_the_sensitivity():
    once = [Event(Gaussian(6.0), NoAmplification(), adjacency, count=10) for adjacency in Adjacency]
    found = {e.neighbours: tightest([e], 1e-5, "rdp").epsilon for e in once}
    assert found[Adjacency.ADD_REMOVE] == found[Adjacency.REPLACE_SPECIAL]
    half = tightest([Event(Gaussian(3.0), NoAmplification(), Adjacency.ADD_REMOVE, count=10)], 1e-5, "rdp").epsilon
    assert found[Adjacency.REPLACE_ONE] == half


@settings(max_examples=12, deadline=None)
@given(
    st.floats(0.6, 8),
    st.floats(0.001, 1),
    st.integers(1, 3000),
    st.sampled_from([1e-3, 1e-5, 1e-8]),
    st.sampled_from([Poisson, "without", "two"]),
)
def test_monotone(z, rate, steps, delta, kind):
    def found(z=z, rate=rate, steps=steps, delta=delta):
        scheme = {
            Poisson: Poisson(rate),
            "without": WithoutReplacement(1000, max(1, round(1000 * rate))),
            "two": TwoStage(rate, 0.3, steps=2),
        }[kind]
        return tightest([Event(Gaussian(z), scheme, count=steps)], delta, "rdp").epsilon

    base = found()
    slack = 1e-9 + 1e-9 * base
    assert found(steps=2 * steps) >= base - slack and found(rate=min(1.0, 1.5 * rate)) >= base - slack
    assert found(z=1.3 * z) <= base + slack and found(delta=delta / 10) >= base - slack


@pytest.mark.parametrize("name", ["rdp", "prv", pytest.param("pld", marks=needs_pld)])
def test_order_of_events_does_not_matter(name):
    one = [Event(Gaussian(1.5), Poisson(0.05), count=30), Event(Gaussian(3.0), Poisson(0.2), count=20)]
    split = [one[1], *[Event(Gaussian(1.5), Poisson(0.05))] * 30]
    assert tightest(one, 1e-5, name) == tightest(split, 1e-5, name)
    assert tightest(one, 1e-5, name).epsilon > tightest(one[:1], 1e-5, name).epsilon


@pytest.mark.parametrize("target", [0.1, 1, 10, 50, 100])
@pytest.mark.parametrize("name", ["rdp", "prv", pytest.param("pld", marks=needs_pld)])
def test_calibration_gives_back_the_epsilon(name, target):
    """F09."""
    if name != "rdp" and target > 10:
        pytest.skip("half a minute each: test_large_budgets_of_slow_accountants")
    check_calibrated(name, target)


@pytest.mark.slow
@pytest.mark.parametrize("target", [50, 100])
@pytest.mark.parametrize("name", ["prv", pytest.param("pld", marks=needs_pld)])
def test_large_budgets_of_slow_accountants(name, target):
    check_calibrated(name, target)


def check_calibrated(name, target):
    z = noise_multiplier(target, 0.05, 2000, 1e-5, name)
    assert 0.98 * target <= epsilon(z, 0.05, 2000, 1e-5, name) <= target
    if name == "rdp":
        assert z == pytest.approx({0.1: 76.1, 1: 9.1, 10: 1.39, 50: 0.64, 100: 0.50}[target], rel=0.01)
    else:
        assert z < {0.1: 76.1, 1: 9.1, 10: 1.39, 50: 0.645, 100: 0.505}[target]


def test_calibration_of_other_schemes():
    for scheme in (WithoutReplacement(200, 10), TwoStage(0.1, 0.2, steps=2), NoAmplification()):
        z = calibrate(lambda z, scheme=scheme: [Event(Gaussian(z), scheme, count=50)], 4.0, 1e-4)
        assert 3.92 <= tightest([Event(Gaussian(z), scheme, count=50)], 1e-4).epsilon <= 4.0


def test_unreachable_targets():
    with pytest.raises(ConfigurationError, match="must be > 0"):
        noise_multiplier(0, 0.1, 10, 1e-5)
    with pytest.raises(ConfigurationError, match="still"):
        noise_multiplier(1e-4, 0.1, 10, 1e-5, "rdp")
    with pytest.raises(ConfigurationError, match="more than this plan can spend"):
        noise_multiplier(1e9, 0.1, 10, 1e-5, "rdp")
    with pytest.raises(ConfigurationError, match="nothing is released"):
        noise_multiplier(1.0, 0.1, 0, 1e-5, "rdp")
    with pytest.raises(ConfigurationError, match="PRV composes Poisson"):
        calibrate(lambda z: [Event(Gaussian(z), TwoStage(0.1, 0.1))], 1.0, 1e-5, "prv")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 0.1, 10, 1e-5), "noise_multiplier = 0 must be > 0"),
        ((-1, 0.1, 10, 1e-5), "noise_multiplier"),
        ((math.nan, 0.1, 10, 1e-5), "noise_multiplier"),
        ((1, 0, 10, 1e-5), "rate = 0"),
        ((1, 1.5, 10, 1e-5), "rate = 1.5"),
        ((1, 0.1, -1, 1e-5), "steps = -1"),
        ((1, 0.1, 2.5, 1e-5), "steps = 2.5"),
        ((1, 0.1, 10, 1), "delta = 1"),
        ((1, 0.1, 10, 0), "delta = 0"),
        ((1, 0.1, 10, 1e-5, "prw"), "did you mean 'prv'"),
    ],
)
def test_bad_input(arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        epsilon(*arguments)


def test_incompatible_pairs_are_refused_with_the_reason():
    with pytest.raises(ConfigurationError, match="add-remove neighbours cannot be accounted"):
        Event(Gaussian(1.0), WithoutReplacement(10, 2), Adjacency.ADD_REMOVE)
    with pytest.raises(ConfigurationError, match="replace-one"):
        Event(Gaussian(1.0), Poisson(0.1), Adjacency.REPLACE_ONE)
    both = [Event(Gaussian(1.0), WithoutReplacement(10, 2)), Event(Gaussian(1.0), Poisson(0.1))]
    with pytest.raises(ConfigurationError, match="no common epsilon"):
        tightest(both, 1e-5)
    found = {v.accountant: v for v in bounds([Event(Gaussian(1.0), WithoutReplacement(10, 2))], 1e-5)}
    assert found["rdp"].bound and not found["prv"].bound and "PRV composes" in found["prv"].refusal


def test_beyond_the_discretisation():
    with pytest.raises(ConfigurationError, match="use rdp"):
        epsilon(0.3, 1.0, 500, 1e-5, "prv")
    assert epsilon(0.3, 1.0, 500, 1e-5, "auto") > 3000
    assert tightest([Event(Gaussian(0.0), Poisson(0.1))], 1e-5).epsilon == math.inf, "no noise, no guarantee"
    assert tightest([], 1e-5).epsilon == 0


def test_delta_beside_the_population():
    with pytest.warns(UserWarning, match="1 / 50"):
        check_delta(0.05, 50)


def test_events_survive_json():
    schemes = (
        Poisson(0.1),
        TruncatedPoisson(9, 0.5, 3),
        WithoutReplacement(9, 3),
        TwoStage(0.1, 0.2, 3),
        NoAmplification(),
    )
    for scheme in schemes:
        one = Event(Gaussian(1.25), scheme, count=7)
        assert Event.from_json(one.to_json()) == one


def test_importing_loads_nothing_heavy():
    code = "import fedmeta.privacy, sys; print({'torch', 'opacus', 'dp_accounting'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("scheme", [Poisson, lambda rate: TruncatedPoisson(100, rate, 100)])
def test_other_contents_of_a_unit_are_two_clip_norms_apart(rate, scheme):
    """Against the privacy loss of one round in which +C takes the place of -C, integrated numerically."""
    z, delta = 1.0, 1e-5
    x = np.linspace(-16, 16, 200_001)

    def density(mean):
        bells = [np.exp(-((x - at) ** 2) / (2 * z**2)) / (z * np.sqrt(2 * np.pi)) for at in (0.0, mean)]
        return (1 - rate) * bells[0] + rate * bells[1]

    def excess(epsilon):
        return np.maximum(density(1.0) - np.exp(epsilon) * density(-1.0), 0).sum() * (x[1] - x[0])

    low, high = 0.0, 30.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > delta else (low, middle)
    found = contents_epsilon([Event(Gaussian(z), scheme(rate))], delta)
    assert (
        epsilon(z, rate, 1, delta) < high <= found <= tightest([Event(Gaussian(z), NoAmplification())], delta).epsilon
    )
