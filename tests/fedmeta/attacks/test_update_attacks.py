"""Attacks on updates against ten lines of numpy each, and the properties that hold for all of them."""

import math
import warnings
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmeta.attacks import ATTACKS, make_attack
from fedmeta.attacks.base import AttackContext, AttackImpossible
from fedmeta.attacks.fang import beyond, krum_choice
from fedmeta.errors import ConfigurationError

EVERY = [
    ("sign_flip", {"scale": 2.0}),
    ("gaussian", {"std": 0.5}),
    ("ipm", {"tau": 3}),
    ("alie", {"z": 1.5}),
    *[(name, {"direction": p}) for name in ("min_max", "min_sum") for p in ("unit", "sign", "std")],
    *[("fang", {"rule": rule}) for rule in ("median", "trimmed_mean", "krum")],
    ("mimic", {}),
    ("mimic", {"target": 1}),
    ("mimic", {"warmup": 0}),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(k: int = 7, d: int = 11, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return (torch.randn(k, d, generator=generator(seed), dtype=torch.float64) + 0.3).to(dtype)


def attack(name: str, benign: torch.Tensor, m: int, /, **parameters) -> torch.Tensor:
    return make_attack(name, **parameters)(benign, n_malicious=m, generator=generator(3))


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize(("name", "parameters"), EVERY)
def test_shape_dtype_no_mutation_no_shared_memory_and_repeatable(name: str, parameters: dict, m: int) -> None:
    benign = rows()
    before = benign.clone()
    found = attack(name, benign, m, **parameters)
    assert found.shape == (m, 11) and found.dtype == torch.float64 and torch.isfinite(found).all()
    assert torch.equal(found, attack(name, benign, m, **parameters))
    found.add_(1e6)  # what an attacker does to its rows must reach neither the benign ones nor another attacker's
    assert torch.equal(benign, before)
    assert found.untyped_storage().data_ptr() != benign.untyped_storage().data_ptr()


@pytest.mark.parametrize(("name", "parameters"), EVERY)
def test_float32_agrees_with_float64_and_arrays_with_tensors(name: str, parameters: dict) -> None:
    single, double = attack(name, rows(dtype=torch.float32), 2, **parameters), attack(name, rows(), 2, **parameters)
    assert single.dtype == torch.float32 and torch.allclose(single.double(), double, rtol=1e-5, atol=1e-5)
    array = make_attack(name, **parameters)(rows().numpy(), n_malicious=2, generator=generator(3))
    assert torch.equal(array, double)


@pytest.mark.parametrize(("name", "parameters"), EVERY)
def test_one_coordinate_one_attacker_and_none(name: str, parameters: dict) -> None:
    assert torch.isfinite(attack(name, rows(d=1), 1, **parameters)).all()
    assert attack(name, rows(), 0, **parameters).shape == (0, 11)


@pytest.mark.parametrize(("name", "parameters"), EVERY)
def test_identical_rows(name: str, parameters: dict) -> None:
    """Nothing to hide in: what depends on the spread sends the common row, with a word; nothing divides by zero."""
    benign = torch.full((6, 3), 2.0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = attack(name, benign, 2, **parameters)
    assert torch.isfinite(found).all()
    if name in ("alie", "min_max", "min_sum", "mimic"):
        assert torch.allclose(found, benign[:2])
    assert bool(said) == (name in ("min_max", "min_sum") or parameters.get("rule") == "krum")


@pytest.mark.parametrize(("name", "parameters"), EVERY)
def test_rows_that_are_not_finite_are_refused(name: str, parameters: dict) -> None:
    benign = rows()
    benign[2, 3] = torch.nan
    with pytest.raises(AttackImpossible, match="NaN or infinite"):
        attack(name, benign, 1, **parameters)


@pytest.mark.parametrize(("name", "parameters"), [case for case in EVERY if case[0] != "mimic" or not case[1]])
def test_the_order_of_benign_rows_does_not_matter(name: str, parameters: dict) -> None:
    benign = rows()
    shuffled = benign[torch.randperm(7, generator=generator(5))]
    a, b = attack(name, benign, 2, **parameters), attack(name, shuffled, 2, **parameters)
    assert torch.allclose(a, b, atol=1e-9)


def test_sign_flip_of_one_known_row_is_a_lone_attackers_own() -> None:
    own = rows(k=1)
    assert torch.equal(attack("sign_flip", own, 1), -own)
    assert torch.allclose(attack("sign_flip", rows(), 2, scale=10)[1], -10 * rows().mean(0))


@pytest.mark.parametrize(("tau", "reversed_"), [(2.3, False), (2.4, True)])
def test_ipm_reverses_the_mean_iff_tau_m_exceeds_n_minus_m(tau: float, reversed_: bool) -> None:
    benign, m = rows(), 3  # n - m = 7, so tau must exceed 7 / 3
    whole = torch.cat([benign, attack("ipm", benign, m, tau=tau)]).mean(0)
    assert bool(whole @ benign.mean(0) < 0) == reversed_


@pytest.mark.parametrize(("k", "m"), [(40, 10), (80, 20), (12, 5), (30, 13)])
def test_alie_against_numpy(k: int, m: int) -> None:
    benign = rows(k).numpy()
    n = k + m
    z = NormalDist().inv_cdf((n - m - (math.floor(n / 2 + 1) - m)) / (n - m))
    expected = benign.mean(0) - z * benign.std(0, ddof=1)
    assert np.allclose(attack("alie", rows(k), m)[0].numpy(), expected)
    assert z > 0


def test_alie_of_the_paper_and_the_case_without_an_attack() -> None:
    benign = rows(40)
    z = float(((benign.mean(0) - attack("alie", benign, 10)[0]) / benign.std(0, correction=1))[0])
    assert z == pytest.approx(0.2533, abs=1e-4)
    with pytest.warns(UserWarning, match="z = 0: .*no attack"):
        found = attack("alie", rows(8), 2)
    assert torch.allclose(found[0], rows(8).mean(0))
    with pytest.warns(UserWarning, match="below 0"):
        attack("alie", rows(3), 1)
    with pytest.raises(AttackImpossible, match="no finite z for 9 attackers of 11"):
        attack("alie", rows(2), 9)
    with pytest.raises(AttackImpossible, match="at least 2"):
        attack("alie", rows(1), 1)


def bisected(benign: np.ndarray, p: np.ndarray, kind: str) -> np.ndarray:
    """The paper's search, carried to 100 halvings: the largest gamma whose vector keeps the bound."""
    squares = ((benign[:, None] - benign[None]) ** 2).sum(-1)
    bound = squares.max() if kind == "min_max" else squares.sum(1).max()

    def kept(gamma: float) -> bool:
        distances = ((benign.mean(0) + gamma * p - benign) ** 2).sum(1)
        return bool((distances.max() if kind == "min_max" else distances.sum()) <= bound)

    low, high = 0.0, 1.0
    while kept(high):
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    return benign.mean(0) + low * p


@pytest.mark.parametrize("name", ["min_max", "min_sum"])
@pytest.mark.parametrize("direction", ["unit", "sign", "std"])
def test_closed_forms_against_the_search(name: str, direction: str) -> None:
    benign = rows(9, 20).numpy()
    mean = benign.mean(0)
    p = {"unit": -mean / np.linalg.norm(mean), "sign": -np.sign(mean), "std": -benign.std(0, ddof=1)}[direction]
    found = attack(name, torch.from_numpy(benign), 1, direction=direction)[0].numpy()
    assert np.allclose(found, bisected(benign, p, name), atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(2, 9),
    d=st.integers(1, 12),
    exponent=st.integers(-6, 6),
    direction=st.sampled_from(["unit", "sign", "std"]),
)
def test_min_max_and_min_sum_meet_their_bounds_with_equality(
    seed: int, k: int, d: int, exponent: int, direction: str
) -> None:
    benign = rows(k, d, seed) * 10.0**exponent
    squares = torch.cdist(benign, benign, compute_mode="donot_use_mm_for_euclid_dist") ** 2
    u = attack("min_max", benign, 1, direction=direction)[0]
    assert float(((u - benign) ** 2).sum(1).max()) == pytest.approx(float(squares.max()), rel=1e-9)
    u = attack("min_sum", benign, 1, direction=direction)[0]
    assert float(((u - benign) ** 2).sum()) == pytest.approx(float(squares.sum(1).max()), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-100, 100))
def test_along_the_deviation_both_move_with_the_rows(seed: int, shift: float) -> None:
    """Translation equivariance, where the direction does not depend on the origin; and scale equivariance."""
    benign = rows(6, 5, seed)
    for name in ("min_max", "min_sum", "alie"):
        parameters = {"z": 1.0} if name == "alie" else {}
        base = attack(name, benign, 1, **parameters)
        assert torch.allclose(attack(name, benign + shift, 1, **parameters), base + shift, atol=1e-9)
        assert torch.allclose(attack(name, 3 * benign, 1, **parameters), 3 * base, atol=1e-9)


def test_fang_draws_within_the_papers_intervals() -> None:
    """All four branches, which reference code is known to mix up."""
    benign = torch.tensor([[-3.0, -3.0, 1.0, -1.0, 1.0, 0.0], [-1.0, 1.0, 4.0, 2.0, 1.0, 0.0]])
    # mean signs: -, - , +, +, +, 0; tops -1, 1, 4, 2, 1, 0; bottoms -3, -3, 1, -1, 1, 0
    low, high = beyond(benign, b=2.0)
    assert low.tolist() == [-1.0, 1.0, 0.5, -2.0, 0.5, 0.0]
    assert high.tolist() == [-0.5, 2.0, 1.0, -1.0, 1.0, 0.0]
    found = attack("fang", benign, 200, rule="trimmed_mean")
    assert (found >= low).all() and (found <= high).all()
    assert torch.allclose(found.mean(0)[:5], ((low + high) / 2)[:5], atol=0.1)
    assert not torch.equal(found[0], found[1]), "each attacker draws its own"


def test_fang_moves_the_median_against_the_benign_direction() -> None:
    benign = rows(8, 50)
    poisoned = torch.cat([benign, attack("fang", benign, 5, rule="median")])
    moved = torch.quantile(poisoned, 0.5, dim=0) - torch.quantile(benign, 0.5, dim=0)
    assert ((moved * benign.mean(0).sign()) <= 0).all() and moved.abs().mean() > 0.1


def numpy_krum(all_rows: np.ndarray, f: int) -> int:
    squares = ((all_rows[:, None] - all_rows[None]) ** 2).sum(-1)
    return int(
        np.array([np.sort(np.delete(line, i))[: len(line) - f - 2].sum() for i, line in enumerate(squares)]).argmin()
    )


def test_alie_among_attackers_alone_says_why_it_cannot_be() -> None:
    with pytest.raises(AttackImpossible, match="2 attackers of 2 clients"):
        make_attack("alie")(rows(2), n_malicious=2, context=AttackContext(participants=2))


def test_fang_asks_the_krum_that_it_attacks() -> None:
    for seed in range(40):
        n, f = 5 + seed % 8, (2 + seed % 8) // 2
        assert krum_choice(rows(n, 3, seed), f) == numpy_krum(rows(n, 3, seed).numpy(), f)


@pytest.mark.parametrize("seed", range(4))
def test_fang_is_picked_by_krum_and_the_next_larger_step_would_not_be(seed: int) -> None:
    benign, m = rows(9, 30, seed), 4
    found = attack("fang", benign, m, rule="krum")
    assert numpy_krum(torch.cat([benign, found]).numpy(), m) >= 9
    assert torch.equal(found.sign(), -benign.mean(0).sign().expand(m, -1))
    assert numpy_krum(torch.cat([benign, 2 * found]).numpy(), m) < 9
    assert krum_choice(torch.cat([benign, found]), m) == numpy_krum(torch.cat([benign, found]).numpy(), m)


def test_fang_against_krum_says_what_it_cannot_do() -> None:
    with pytest.raises(AttackImpossible, match="n > 2 f \\+ 2"):
        attack("fang", rows(4), 2, rule="krum")
    with pytest.warns(UserWarning, match="no malicious row"):
        attack("fang", torch.full((6, 2), 3.0), 1, rule="krum")


def test_mimic_against_a_singular_value_decomposition() -> None:
    """With passes enough Oja's rule finds the leading direction, and the row that stands out most along it."""
    benign = rows(12, 6)
    leading = np.linalg.svd((benign - benign.mean(0)).numpy())[2][0]
    expected = benign[int(np.abs(benign.numpy() @ leading).argmax())]
    assert torch.equal(attack("mimic", benign, 2, warmup=300)[1], expected)
    assert torch.equal(attack("mimic", benign, 1, target=4)[0], benign[4])
    assert torch.equal(attack("mimic", benign, 1, warmup=0)[0], benign[0])
    with pytest.raises(AttackImpossible, match="target = 12"):
        attack("mimic", benign, 1, target=12)


def test_mimic_remembers_a_direction_over_rounds() -> None:
    """One client always pulls along e_0: after some rounds it is the one, also where it is not extreme."""
    mimic, memory = make_attack("mimic"), {}
    for round in range(8):
        seen = rows(6, 4, seed=round)
        seen[2, 0] += 20.0
        memory = mimic.remember(memory, seen)
    assert memory["direction"][0].abs() > 0.99 and int(memory["step"]) == 8
    calm = torch.tensor([[0.0, 9.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    found = mimic(calm, n_malicious=1, context=AttackContext(memory=memory))
    assert torch.equal(found[0], calm[1])


def test_mimic_weighs_what_it_remembers_by_the_rounds_seen() -> None:
    mimic, seen = make_attack("mimic"), [rows(6, 4, seed) for seed in range(3)]
    memory = mimic.remember(mimic.remember({}, seen[0]), seen[1])
    centred = (seen[2] - torch.stack(seen).mean(dim=(0, 1))).numpy()
    pull = centred.T @ (centred @ memory["direction"].numpy())
    wanted = 2 * memory["direction"].numpy() + pull / np.linalg.norm(pull)
    assert np.allclose(mimic.remember(memory, seen[2])["direction"], wanted / np.linalg.norm(wanted))


def test_gaussian_is_what_it_says() -> None:
    found = attack("gaussian", torch.full((2, 20_000), 5.0), 2, std=0.3)
    assert found.std() == pytest.approx(0.3, rel=0.02) and found.mean().abs() < 0.01
    assert torch.equal(attack("gaussian", rows(), 1, std=0), torch.zeros(1, 11, dtype=torch.float64))


@pytest.mark.parametrize(("name", "parameters"), [("gaussian", {"std": 1.0}), ("fang", {"rule": "median"})])
def test_random_attacks_need_a_generator(name: str, parameters: dict) -> None:
    with pytest.raises(AttackImpossible, match="pass generator"):
        make_attack(name, **parameters)(rows(), n_malicious=1)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("sign_flipp", {}, "did you mean 'sign_flip'"),
        ("ipm", {"taw": 1}, "did you mean 'tau'"),
        ("gaussian", {}, "std is missing"),
        ("gaussian", {"std": -1}, "std = -1 must be >= 0"),
        ("min_max", {"direction": "mean"}, "one of 'unit', 'sign', 'std'"),
        ("fang", {}, "rule is missing"),
        ("fang", {"rule": "median", "b": 1}, "b = 1 must be > 1"),
        ("mimic", {"target": -1}, "target = -1"),
    ],
)
def test_mistakes_are_named(name: str, parameters: dict, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make_attack(name, **parameters)


def test_calls_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="matrix"):
        make_attack("ipm")(torch.ones(3), n_malicious=1)
    with pytest.raises(ValueError, match="at least 0"):
        make_attack("ipm")(rows(), n_malicious=-1)
    with pytest.raises(AttackImpossible, match="at least 1 known"):
        make_attack("ipm")(torch.ones(0, 3), n_malicious=1)


def test_every_registered_attack_is_importable_and_declares_its_kind() -> None:
    for name in ATTACKS.entries():
        assert ATTACKS.get(name).kind in ("none", "update", "data", "deployment")
