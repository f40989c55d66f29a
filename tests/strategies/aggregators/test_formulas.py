"""Every rule against numpy, written here from the paper's formula and nothing of ours."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

from strategies import make_aggregator
from strategies.aggregation import NotApplicable, RoundContext

matrices = hnp.arrays(
    np.float32, st.tuples(st.integers(7, 12), st.integers(1, 6)), elements=st.floats(-100, 100, width=32)
)


def draw(n: int = 11, size: int = 30, seed: int = 0, outliers: int = 2) -> np.ndarray:
    """Rows in general position, the last ones far away."""
    rng = np.random.default_rng(seed)
    updates = rng.normal(0.5, 1.0, (n, size))
    updates[n - outliers :] = 20 * updates[n - outliers :] - 10
    return updates


def run(name: str, updates: np.ndarray, context: RoundContext | None = None, **parameters):
    return make_aggregator(name, **parameters)(torch.from_numpy(updates), context or RoundContext())


def clip(rows: np.ndarray, bound: float) -> np.ndarray:
    norms = np.sqrt((rows**2).sum(1, keepdims=True))
    return rows * np.where(norms > bound, bound / np.where(norms > 0, norms, 1), 1.0)


def krum_scores(updates: np.ndarray, neighbours: int) -> np.ndarray:
    scores = []
    for i in range(len(updates)):
        others = sorted(((updates[i] - updates[j]) ** 2).sum() for j in range(len(updates)) if j != i)
        scores.append(sum(others[:neighbours]))
    return np.array(scores)


@given(matrices)
@settings(max_examples=50, deadline=None)
def test_median_and_trimmed_mean(updates: np.ndarray) -> None:
    wide = updates.astype(np.float64)
    assert np.allclose(run("median", updates).vector, np.median(wide, axis=0), rtol=1e-6, atol=1e-5)
    trimmed = np.sort(wide, axis=0)[2:-2].mean(axis=0)
    assert np.allclose(run("trimmed_mean", updates, f=2).vector, trimmed, rtol=1e-6, atol=1e-5)


def test_the_median_of_an_even_number_is_the_midpoint() -> None:
    assert run("median", np.array([[1.0], [2.0], [10.0], [20.0]])).vector.item() == 6.0


@pytest.mark.parametrize("seed", range(3))
def test_geometric_median_is_the_minimum(seed: int) -> None:
    updates = draw(9, 4, seed)
    found = run("geometric_median", updates)
    objective = lambda z: np.sqrt(((updates - z) ** 2).sum(1)).sum()  # noqa: E731
    best = minimize(objective, updates.mean(0), method="Nelder-Mead", options={"xatol": 1e-9, "maxiter": 20_000})
    assert objective(found.vector.numpy()) <= best.fun * (1 + 1e-9)
    assert np.allclose(found.scores, np.sqrt(((updates - found.vector.numpy()) ** 2).sum(1)), rtol=1e-6)
    assert np.allclose(found.weights.numpy() @ updates, found.vector)


def test_geometric_median_at_one_of_the_rows() -> None:
    """Where the minimum is a row itself, the iterations come as near as nu lets them."""
    updates = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert np.abs(run("geometric_median", updates).vector.numpy()).max() < 1e-6
    assert run("geometric_median", updates, max_iterations=1).diagnostics["iterations"] == 1


@given(matrices, st.integers(0, 2))
@settings(max_examples=50, deadline=None)
def test_krum_and_multi_krum(updates: np.ndarray, f: int) -> None:
    wide = updates.astype(np.float64)
    for variant, neighbours in (("blanchard", len(wide) - f - 2), ("byzfl", len(wide) - f - 1)):
        expected = krum_scores(wide, neighbours)
        found = run("krum", updates, f=f, variant=variant)
        scale = 1e-9 * max(1.0, expected.max())
        assert np.allclose(found.scores, expected, rtol=1e-9, atol=scale)
        # Where two scores differ by rounding alone, either row may be taken.
        chosen = int(found.weights.argmax())
        assert expected[chosen] <= expected.min() + scale
        assert np.array_equal(found.vector.numpy(), updates[chosen])
    found = run("multi_krum", updates, f=f, m=3)
    expected = krum_scores(wide, len(wide) - f - 2)
    kept = np.flatnonzero(~found.flagged.numpy())
    assert len(kept) == 3 and expected[kept].max() <= np.sort(expected)[2] + 1e-9 * max(1.0, expected.max())
    assert np.allclose(found.vector, wide[kept].mean(0), atol=1e-4)


def test_krum_takes_the_lowest_index_of_equal_scores() -> None:
    updates = np.array([[9.0], [0.2], [0.1], [0.2], [0.1], [0.15]])
    duplicated = run("krum", updates, f=1)
    first = {0.1: 2, 0.2: 1}
    for row in (1, 2, 3, 4):
        assert duplicated.scores[row] == duplicated.scores[first[float(updates[row, 0])]], "duplicates tie exactly"
    symmetric = run("krum", np.array([[0.0], [1.0], [2.0], [3.0], [4.0]]), f=0)
    assert symmetric.scores.tolist() == [14.0, 6.0, 6.0, 6.0, 14.0] and symmetric.vector.item() == 1.0
    tied = run("krum", np.array([[5.0], [0.0], [1.0], [1.0], [0.0], [5.0]]), f=1)
    assert int(tied.weights.argmax()) == int(np.argmin(krum_scores(np.array([[5.0], [0], [1], [1], [0], [5]]), 3)))


def test_multi_krum_flags_what_it_leaves_out() -> None:
    found = run("multi_krum", draw(11, 30), f=2)
    assert found.flagged.tolist() == [False] * 9 + [True] * 2
    assert np.allclose(found.weights, [1 / 9] * 9 + [0, 0])


def bulyan(updates: np.ndarray, f: int) -> np.ndarray:
    left, chosen = list(range(len(updates))), []
    while len(chosen) < len(updates) - 2 * f:
        scores = krum_scores(updates[left], max(1, len(left) - f - 2))
        chosen.append(left.pop(int(np.argmin(scores))))
    rows = updates[sorted(chosen)]
    found = []
    for column in rows.T:
        nearest = np.argsort(np.abs(column - np.median(column)), kind="stable")[: len(updates) - 4 * f]
        found.append(column[nearest].mean())
    return np.array(found)


@pytest.mark.parametrize(("n", "f"), [(7, 1), (11, 2), (16, 3), (15, 2)])
def test_bulyan(n: int, f: int) -> None:
    for seed in range(3):
        updates = draw(n, 9, seed, outliers=f)
        assert np.allclose(run("bulyan", updates, f=f).vector, bulyan(updates, f))


@pytest.mark.parametrize("clip_norm", [None, 1.5])
@pytest.mark.parametrize("start", [False, True])
def test_centered_clipping(clip_norm: float | None, start: bool) -> None:
    updates = draw()
    centre = np.full(30, 0.4) if start else np.zeros(30)
    context = RoundContext(momentum=torch.from_numpy(centre)) if start else RoundContext()
    for _ in range(3):
        differences = updates - centre
        lengths = np.sqrt((differences**2).sum(1))
        bound = np.median(lengths) if clip_norm is None else clip_norm
        centre = centre + (differences * np.minimum(1, bound / lengths)[:, None]).mean(0)
    found = run("centered_clipping", updates, context, clip_norm=clip_norm)
    assert np.allclose(found.vector, centre)
    again = run("centered_clipping", updates, RoundContext(state=found.state), clip_norm=clip_norm)
    given = run("centered_clipping", updates, RoundContext(momentum=found.vector), clip_norm=clip_norm)
    assert torch.equal(again.vector, given.vector), "without a given momentum it starts at its own last result"
    assert not torch.equal(again.vector, found.vector)


@pytest.mark.parametrize("n", [10, 11])
def test_norm_bound(n: int) -> None:
    updates = draw(n)
    bound = np.median(np.sqrt((updates**2).sum(1)))
    assert np.allclose(run("norm_bound", updates).vector, clip(updates, bound).mean(0))
    assert np.allclose(run("norm_bound", updates, clip_norm=2.0).vector, clip(updates, 2.0).mean(0))
    plain = run("norm_bound", updates, clip_norm=1e9).vector
    assert np.allclose(plain, updates.mean(0)), "no noise and a wide bound: the plain mean"


def test_norm_bound_noise_has_its_deviation_and_comes_from_the_generator() -> None:
    updates = np.zeros((3, 20_000))
    seeded = lambda seed: RoundContext(generator=torch.Generator().manual_seed(seed))  # noqa: E731
    one = run("norm_bound", updates, seeded(1), noise_std=0.025).vector
    assert abs(float(one.std()) - 0.025) < 0.001
    assert torch.equal(one, run("norm_bound", updates, seeded(1), noise_std=0.025).vector)
    assert not torch.equal(one, run("norm_bound", updates, seeded(2), noise_std=0.025).vector)


def test_rlr() -> None:
    updates = draw(7, 50, outliers=0)
    updates[:, 0] = 0.0  # zeros vote for neither side
    updates[:, 1] = [1, 1, 1, 1, 1, -1, 0]  # four votes: reaching the threshold is enough
    votes = np.abs(np.sign(updates).sum(0))
    expected = np.where(votes >= 4, 1.0, -1.0) * updates.mean(0) * 0.5
    found = run("rlr", updates, threshold=4, server_lr=0.5)
    assert np.allclose(found.vector, expected)
    assert found.diagnostics["reversed-share"] == pytest.approx((votes < 4).mean())
    assert found.vector[1] > 0


@pytest.mark.parametrize(("iterations", "outliers"), [(1, 3), (3, 3), (3, 0)])
def test_dnc(iterations: int, outliers: int) -> None:
    """Without outliers every iteration drops other rows, and only those are kept that none dropped."""
    updates = draw(12, 200, outliers=outliers)
    context = RoundContext(generator=torch.Generator().manual_seed(3))
    found = run("dnc", updates, context, f=3, subsample=50, iterations=iterations, filter_ratio=1.2)
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(3))))
    kept, scores = set(range(12)), np.zeros(12)
    for _ in range(iterations):
        sample = updates[:, rng.choice(200, 50, replace=False)]
        centred = sample - sample.mean(0)
        v = np.linalg.svd(centred, full_matrices=False)[2][0]
        outlying = (centred @ v) ** 2
        scores = np.maximum(scores, outlying)
        last = set(np.argsort(outlying)[: 12 - 3].tolist())
        kept &= last
    assert (kept == last) == (outliers == 3) and kept
    assert np.allclose(found.scores, scores)
    assert np.allclose(found.vector, updates[sorted(kept)].mean(0))
    assert set(np.flatnonzero(~found.flagged.numpy()).tolist()) == kept


def test_dnc_falls_back_to_the_last_iteration_where_none_is_kept_by_all() -> None:
    """Each coordinate has its own outlier, so that one coordinate at a time excludes everybody in the end."""
    updates = 50.0 * np.eye(6) + draw(6, 6, outliers=0) * 0.01
    found = run("dnc", updates, f=2, subsample=1, iterations=60, filter_ratio=2.0)
    assert found.event is None and int((~found.flagged).sum()) == 2


def foolsgold(history: np.ndarray, kappa: float) -> np.ndarray:
    n = len(history)
    cs = np.array(
        [[0.0 if i == j else 1 - cdist(history[[i]], history[[j]], "cosine")[0, 0] for j in range(n)] for i in range(n)]
    )
    v = np.maximum(0, cs.max(1))
    for i, j in itertools.product(range(n), range(n)):
        if v[j] > v[i]:
            cs[i, j] *= v[i] / v[j]
    w = np.clip(1 - np.maximum(0, cs.max(1)), 0, 1)
    w /= w.max()
    with np.errstate(divide="ignore"):
        return np.clip(kappa * (np.log(w / (1 - w)) + 0.5), 0, 1)


@pytest.mark.parametrize("kappa", [1.0, 2.0])
def test_foolsgold_follows_clients_over_rounds(kappa: float) -> None:
    rng = np.random.default_rng(1)
    rounds = [rng.normal(size=(5, 6)) for _ in range(3)]
    for updates in rounds:
        updates[3:] = rng.normal(size=6) + 0.05 * rng.normal(size=(2, 6))  # two sybils
    members = [(10, 11, 12, 13, 14), (14, 10, 12, 11, 13), (13, 14, 10, 11, 99)]
    history: dict[int, np.ndarray] = {}
    state = {}
    for updates, clients in zip(rounds, members, strict=True):
        for client, row in zip(clients, updates, strict=True):
            history[client] = history.get(client, 0) + row
        weights = foolsgold(np.stack([history[client] for client in clients]), kappa)
        found = run("foolsgold", updates, RoundContext(clients=clients, state=state), kappa=kappa)
        assert np.allclose(found.weights, weights / weights.sum())
        assert np.allclose(found.vector, (weights / weights.sum()) @ updates)
        state = found.state
    assert set(state) == {f"history/{client}" for client in (10, 11, 12, 13, 14, 99)}, "absent clients are remembered"
    assert np.allclose(state["history/12"], rounds[0][2] + rounds[1][2])


def test_foolsgold_pardons_who_is_only_a_little_like_the_sybils() -> None:
    """Row three's cosine of 0.7 to the sybils counts 0.7 / 1 of that: w = 0.51, and ln(0.51 / 0.49) + 0.5 = 0.54."""
    updates = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.7, np.sqrt(0.51)], [1.0, 0.0, 0.0]])
    trust = np.array([0.0, 0.0, np.log(0.51 / 0.49) + 0.5, 1.0])
    found = run("foolsgold", updates)
    assert np.allclose(found.weights, trust / trust.sum()) and np.allclose(foolsgold(updates, 1.0), trust)


def test_fltrust() -> None:
    updates = draw()
    root = np.linspace(-1, 1, 30)
    cosines = updates @ root / np.linalg.norm(updates, axis=1) / np.linalg.norm(root)
    trust = np.maximum(cosines, 0)
    scaled = updates / np.linalg.norm(updates, axis=1, keepdims=True) * np.linalg.norm(root)
    found = run("fltrust", updates, RoundContext(root_update=torch.from_numpy(root)))
    assert np.allclose(found.vector, (trust[:, None] * scaled).sum(0) / trust.sum())
    assert np.array_equal(found.flagged, trust == 0) and np.allclose(found.scores, 1 - cosines)


def test_fltrust_trusting_nobody_moves_nothing() -> None:
    root = RoundContext(root_update=torch.tensor([1.0, 0.0]))
    for updates in ([[-1.0, 0.0], [-1.0, 2.0]], [[0.0, 0.0], [0.0, 3.0]]):
        found = make_aggregator("fltrust")(torch.tensor(updates), root)
        assert not found.vector.any() and found.flagged.all() and "root update" in found.event
    nothing = make_aggregator("fltrust")(torch.ones(2, 2), RoundContext(root_update=torch.zeros(2)))
    assert nothing.event is not None
    with pytest.raises(NotApplicable, match="fltrust needs root_update"):
        make_aggregator("fltrust")(torch.ones(2, 2))


def alignins(updates: np.ndarray, model: np.ndarray, sparsity: float, bounds: tuple[float, float]) -> np.ndarray:
    tda = updates @ model / np.linalg.norm(updates, axis=1) / np.linalg.norm(model)
    majority = np.sign(np.sign(updates).sum(0))
    count = int(sparsity * updates.shape[1])
    mpsa = []
    for row in updates:
        top = np.argsort(-np.abs(row), kind="stable")[:count]
        mpsa.append((np.sign(row[top]) == majority[top]).mean())
    kept = np.ones(len(updates), dtype=bool)
    for values, bound in zip((tda, np.array(mpsa)), bounds, strict=True):
        kept &= np.abs(values - np.median(values)) / values.std() < bound
    bound = np.median(np.linalg.norm(updates[kept], axis=1))
    return clip(updates[kept], bound).mean(0)


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (0.5, 2.0), (2.0, 0.5)])
def test_alignins(bounds: tuple[float, float]) -> None:
    for seed in range(5):
        updates, model = draw(10 + seed % 2, 60, seed), np.random.default_rng(seed + 9).normal(size=60)
        updates[:, 5] = 0.0
        context = RoundContext(model=torch.from_numpy(model))
        found = run("alignins", updates, context, lambda_s=bounds[0], lambda_c=bounds[1])
        assert np.allclose(found.vector, alignins(updates, model, 0.3, bounds))


def test_alignins_keeps_who_is_nearer_than_its_bounds() -> None:
    """Two rows of one cosine to the model, whose shares of majority signs, 1 and 0, are a deviation off the median."""
    updates = np.array([[2.0, 1.0], [1.0, -2.0]])
    context = RoundContext(model=torch.tensor([3.0, -1.0], dtype=torch.float64))
    assert run("alignins", updates, context, sparsity=0.5).event is not None
    assert not run("alignins", updates, context, sparsity=0.5, lambda_c=1.01).flagged.any()


def test_alignins_counts_the_lowest_index_of_equal_magnitudes() -> None:
    from strategies.aggregators.alignins import principal_agreement

    matrix = torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -2.0, -2.0], [1.0, 1.0, -2.0, -2.0]])
    assert principal_agreement(matrix, 0.5).tolist() == [0.5, 1.0, 1.0]


def test_signguard_filters_lengths_before_clipping_and_signs_by_cluster() -> None:
    rng = np.random.default_rng(0)
    updates = np.abs(rng.normal(1, 0.1, (10, 400))) * np.where(rng.random((10, 400)) < 0.7, 1, -1)
    updates[7] = -np.abs(updates[7])  # signs unlike the others'
    updates[8] *= 5.0  # too long: after clipping it would pass
    updates[9] *= 0.05  # too short
    found = run("signguard", updates, fraction=1.0)
    assert found.flagged.tolist() == [False] * 7 + [True] * 3
    assert found.diagnostics["norm-outliers"] == 2
    bound = np.median(np.linalg.norm(updates, axis=1))
    assert np.allclose(found.vector, clip(updates[:7], bound).mean(0))
    assert int(found.scores.argmax()) == 7
    with_direction = run("signguard", updates, fraction=1.0, similarity="cosine")
    assert torch.equal(with_direction.state["previous"], with_direction.vector)
    again = run("signguard", updates, RoundContext(state=with_direction.state), fraction=1.0, similarity="cosine")
    assert again.flagged[7:].all()


def opposed() -> np.ndarray:
    """Seven rows and three that point the other way with the same shares of signs: only their direction tells."""
    rng = np.random.default_rng(0)
    return np.abs(rng.normal(1, 0.1, (10, 40))) * np.where(np.arange(40) % 2, 1, -1) * np.array([[1]] * 7 + [[-1]] * 3)


def nobody() -> np.ndarray:
    """The largest cluster of signs, four of nine rows, has extraordinary lengths."""
    half = np.where(np.arange(20) % 2, 1.0, -1.0)
    return np.concatenate([np.full((4, 20), 9.0), np.full((3, 20), -1.0), np.tile(half, (2, 1))])


def test_signguard_keeps_lengths_at_its_bounds() -> None:
    updates = np.ones((5, 4)) * [[0.5], [1], [1], [1], [2]]
    assert not run("signguard", updates, lower=0.5, upper=2.0, fraction=1.0).flagged.any()
    within = run("signguard", updates, lower=0.51, upper=1.99, fraction=1.0)
    assert within.flagged.tolist() == [True, False, False, False, True]


def test_signguard_by_direction() -> None:
    updates = opposed()
    assert not run("signguard", updates, fraction=1.0).flagged.any()
    first = run("signguard", updates, fraction=1.0, similarity="cosine")
    assert first.flagged.tolist() == [False] * 7 + [True] * 3, "by the cosines to the others"
    second = run("signguard", updates, RoundContext(state=first.state), fraction=1.0, similarity="cosine")
    assert torch.equal(second.flagged, first.flagged), "by the cosines to the last result"
    direction = first.vector.numpy()
    cosines = updates @ direction / np.linalg.norm(updates, axis=1) / np.linalg.norm(direction)
    assert np.allclose(second.scores, np.abs(cosines - np.median(cosines)))


@pytest.mark.parametrize("similarity", [None, "cosine"])
def test_signguard_that_keeps_nobody_says_so(similarity: str | None) -> None:
    found = run("signguard", nobody(), fraction=1.0, similarity=similarity)
    assert found.event == "SignGuard's two filters kept no update"
    assert found.flagged.all() and not found.weights.any() and not found.vector.any()
    assert found.state == {}, "a direction of zero would say nothing next round"


def test_signguard_remembers_its_last_result_through_a_lost_round() -> None:
    previous = torch.linspace(-1.0, 1.0, 20)
    context = RoundContext(state={"previous": previous})
    found = run("signguard", nobody(), context, fraction=1.0, similarity="cosine")
    assert found.event is not None and torch.equal(found.state["previous"], previous)


def test_flame_admits_the_majority_in_overlapping_clusters() -> None:
    """Against scikit-learn directly on the matrix of 1 - cos, with honest rows that are spread widely."""
    import sklearn.cluster

    for seed in range(4):
        rng = np.random.default_rng(seed)
        updates = rng.normal(0, 1, (11, 8)) + np.linspace(1, 2, 8)
        updates[8:] = rng.normal(0, 0.4, (3, 8)) - 0.5
        distances = cdist(updates, updates, "cosine")
        labels = (
            sklearn.cluster.HDBSCAN(
                min_cluster_size=6, min_samples=1, metric="precomputed", allow_single_cluster=True, copy=True
            )
            .fit(distances)
            .labels_
        )
        found = run("flame", updates, noise_factor=0.0)
        if (labels >= 0).any():
            bound = np.median(np.linalg.norm(updates, axis=1))
            assert np.array_equal(~found.flagged.numpy(), labels >= 0)
            assert np.allclose(found.vector, clip(updates[labels >= 0], bound).mean(0))
        else:
            assert found.event is not None


def test_flame_finds_attackers_and_its_noise_is_relative() -> None:
    rng = np.random.default_rng(0)
    updates = np.concatenate([rng.normal(1, 0.1, (8, 500)), rng.normal(-1, 0.1, (3, 500))])
    clean = run("flame", updates, noise_factor=0.0)
    assert clean.flagged[8:].all() and int((~clean.flagged).sum()) >= 5, "a density cluster sheds some honest rows too"
    noisy = run("flame", updates, noise_factor=0.01)
    bound = np.median(np.linalg.norm(updates, axis=1))
    assert float((noisy.vector - clean.vector).std()) == pytest.approx(0.01 * bound, rel=0.15)
    assert not run("flame", updates[7:10], noise_factor=0.0).flagged.any(), "below four rows nobody is left out"


@pytest.mark.parametrize(("n", "flagged"), [(3, []), (4, [3])])
def test_flame_leaves_nobody_out_below_four_rows(n: int, flagged: list[int]) -> None:
    updates = np.ones((n, 5)) + 0.01 * np.eye(n, 5)
    updates[-1] *= [1, -1, 1, -1, 1]
    found = run("flame", updates, noise_factor=0.0)
    assert np.flatnonzero(found.flagged).tolist() == flagged


def test_flame_on_whole_models() -> None:
    rng = np.random.default_rng(0)
    updates, model = rng.normal(size=(9, 20)), 3 * rng.normal(size=20)
    context = RoundContext(model=torch.from_numpy(model))
    found = run("flame", updates, context, noise_factor=0.0, cosine_of="models")
    distances = cdist(updates + model, updates + model, "cosine")
    assert np.allclose(found.scores, np.median(distances, axis=1))
    with pytest.raises(NotApplicable, match=r"flame\.cosine_of = 'models' needs the model"):
        run("flame", updates, cosine_of="models")


def test_flame_without_a_majority_direction_admits_all() -> None:
    """Two equal camps: neither can be a cluster of its own, so the only one is everybody."""
    rng = np.random.default_rng(0)
    camps = np.repeat(np.eye(2), 6, axis=0) + 0.01 * rng.normal(size=(12, 2))
    assert not run("flame", camps, noise_factor=0.0).flagged.any()
