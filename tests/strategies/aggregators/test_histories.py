"""Rules that need more than one round or more than updates: FLDetector, DeepSight, and what is beneath them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from fedmeta.params import Entry, ParamSpec
from strategies import make_aggregator
from strategies.aggregation import NotApplicable, Probe, RoundContext
from strategies.aggregators.deepsight import accepted, apart, division_differences, energies
from strategies.clustering import gap_clusters, hdbscan, largest_cluster, mean_shift, split_line
from strategies.lbfgs import hessian_times
from strategies.rows import Rows


def quadratic(size: int, seed: int = 0) -> np.ndarray:
    """A positive definite Hessian."""
    root = np.random.default_rng(seed).normal(size=(size, size))
    return root @ root.T + np.eye(size)


def test_the_last_step_is_exact_on_a_quadratic() -> None:
    hessian, steps = quadratic(6), np.random.default_rng(1).normal(size=(4, 6))
    found = hessian_times(torch.from_numpy(steps), torch.from_numpy(steps @ hessian), torch.from_numpy(steps[-1]))
    assert np.allclose(found, hessian @ steps[-1])


def test_every_direction_is_exact_on_a_quadratic_with_conjugate_steps() -> None:
    hessian = quadratic(5)
    _, vectors = np.linalg.eigh(hessian)
    steps = vectors.T * np.arange(1.0, 6.0)[:, None]
    v = np.random.default_rng(2).normal(size=5)
    found = hessian_times(torch.from_numpy(steps), torch.from_numpy(steps @ hessian), torch.from_numpy(v))
    assert np.allclose(found, hessian @ v)


def test_compact_form_equals_recursive_bfgs() -> None:
    hessian, steps = quadratic(7), np.random.default_rng(3).normal(size=(3, 7))
    changes = steps @ hessian
    approximation = np.eye(7) * (changes[-1] @ steps[-1]) / (steps[-1] @ steps[-1])
    for s, y in zip(steps, changes, strict=True):
        moved = approximation @ s
        approximation = approximation - np.outer(moved, moved) / (s @ moved) + np.outer(y, y) / (y @ s)
    v = np.random.default_rng(4).normal(size=7)
    found = hessian_times(torch.from_numpy(steps), torch.from_numpy(changes), torch.from_numpy(v))
    assert np.allclose(found, approximation @ v)


def test_steps_that_say_nothing_are_left_out() -> None:
    zero, v = torch.zeros(2, 3), torch.ones(3)
    assert torch.equal(hessian_times(zero, zero, v), torch.zeros(3, dtype=torch.float64))
    negative = hessian_times(torch.eye(3)[:1], -torch.eye(3)[:1], v)
    assert torch.equal(negative, torch.zeros(3, dtype=torch.float64))
    parallel = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    assert torch.allclose(
        hessian_times(parallel, 3 * parallel, torch.tensor([1.0, 0.0])).float(), torch.tensor([3.0, 0.0])
    )


def play(rounds: int, malicious: set[int], members=lambda t: range(8), window: int = 4):
    """FedSGD on a quadratic: honest gradients H (theta - theta*) plus noise, attackers send random vectors."""
    rng, hessian = np.random.default_rng(0), quadratic(10)
    rule, theta, state, found = make_aggregator("fldetector", window=window), rng.normal(size=10), {}, []
    for t in range(rounds):
        clients = tuple(members(t))
        updates = np.stack(
            [
                rng.normal(0, 5, 10) if c in malicious else -(hessian @ theta) + 0.01 * rng.normal(size=10)
                for c in clients
            ]
        )
        context = RoundContext(round=t, clients=clients, model=torch.from_numpy(theta.copy()), state=state)
        aggregate = rule(torch.from_numpy(updates), context)
        found.append((clients, updates, theta.copy(), aggregate))
        state, theta = aggregate.state, theta + 0.01 * aggregate.vector.numpy()
    return found


def test_fldetector_scores_against_the_formula() -> None:
    found = play(6, {6, 7})
    past: dict[int, list[float]] = {c: [] for c in range(8)}
    for t in range(1, 6):
        _, updates, theta, aggregate = found[t]
        before = found[t - 1]
        steps = [found[k][2] - found[k - 1][2] for k in range(1, t)][-4:]
        changes = [-(found[k][3].vector - found[k - 1][3].vector).numpy() for k in range(1, t)][-4:]
        change = np.zeros(10)
        if steps:
            change = hessian_times(*map(torch.tensor, (np.array(steps), np.array(changes), theta - before[2]))).numpy()
        distances = np.linalg.norm((-before[1] + change) - (-updates), axis=1)
        for client, distance in enumerate(distances / distances.sum()):
            past[client].append(distance)
        assert np.allclose(aggregate.scores, [np.mean(past[c][-4:]) for c in range(8)])


def test_fldetector_predicts_from_a_clients_own_last_round_not_from_the_servers() -> None:
    """Clients 0 and 1 sit out every second round: their change of model spans two, that of the others one."""
    found = play(5, set(), members=lambda t: [c for c in range(6) if t % 2 == 0 or c >= 2])
    clients, updates, theta, aggregate = found[4]
    steps = np.array([found[k][2] - found[k - 1][2] for k in range(1, 4)])
    changes = np.array([-(found[k][3].vector - found[k - 1][3].vector).numpy() for k in range(1, 4)])
    distances = []
    for row, client in enumerate(clients):
        last = found[2] if client < 2 else found[3]
        moved = hessian_times(*map(torch.tensor, (steps, changes, theta - last[2]))).numpy()
        distances.append(np.linalg.norm(last[1][last[0].index(client)] - moved - updates[row]))
    ours = [float(aggregate.state[f"distances/{client}"][-1]) for client in clients]
    assert np.allclose(ours, np.array(distances) / sum(distances))


def test_fldetector_flags_once_it_has_seen_enough() -> None:
    found = play(8, {6, 7})
    for t, (_, updates, _, aggregate) in enumerate(found):
        if t < 4:
            assert not aggregate.flagged.any(), "not before a client has a whole window"
        else:
            assert aggregate.flagged.tolist() == [False] * 6 + [True] * 2
            assert np.allclose(aggregate.vector, updates[:6].mean(0))


def test_fldetector_flags_nobody_without_attackers() -> None:
    assert not any(aggregate.flagged.any() for *_, aggregate in play(9, set()))


def test_fldetector_follows_clients_that_come_and_go() -> None:
    """A client's history goes on from its own last round; models are kept while somebody needs them."""
    found = play(12, {7}, members=lambda t: [c for c in range(8) if (c + t) % 2 or c >= 6])
    final = found[-1][3]
    assert final.diagnostics["judged"] == 2 + 3 and final.flagged[-1]
    kept = {name for name in final.state if name.startswith("model/")}
    assert kept == {"model/10", "model/11"}
    assert {f"update/{c}" for c in range(8)} <= set(final.state)
    assert all(isinstance(value, torch.Tensor) for value in final.state.values()), "safetensors can hold it"
    assert final.state["steps"].shape == (4, 10)


@given(st.lists(st.floats(-10, 10), min_size=4, max_size=9), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_k_means_on_a_line_is_optimal(numbers: list[float], k: int) -> None:
    values = np.array(numbers)
    labels, inertia = split_line(values, k)
    assert set(labels.tolist()) == set(range(k))
    means = [values[labels == label].mean() for label in range(k)]
    # By the values, not by the means: of equal values, means differ in the last bit.
    assert all(values[labels == c].max() <= values[labels == c + 1].min() for c in range(k - 1))
    assert inertia == pytest.approx(sum(((values[labels == c] - means[c]) ** 2).sum() for c in range(k)), abs=1e-6)
    import itertools

    best = min(
        sum(((part - part.mean()) ** 2).sum() for part in np.split(np.sort(values), cut))
        for cut in itertools.combinations(range(1, len(values)), k - 1)
    )
    assert inertia == pytest.approx(best, abs=1e-6)


def test_the_gap_statistic_counts_clusters() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(0, 1, 40), np.concatenate([rng.normal(0, 0.1, 20), rng.normal(9, 0.1, 20)])
    assert gap_clusters(one, 5, np.random.default_rng(1)) == 1
    assert gap_clusters(two, 5, np.random.default_rng(1)) == 2
    assert gap_clusters(np.full(7, 3.0), 5, np.random.default_rng(1)) == 1


def test_clusters_of_identical_points() -> None:
    assert hdbscan(torch.zeros(4, 4, dtype=torch.float64), 3, single=True).tolist() == [0, 0, 0, 0]
    assert hdbscan(torch.ones(2, 2, dtype=torch.float64), 3, single=True).tolist() == [-1, -1]
    same = mean_shift(torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]], dtype=torch.float64))
    assert largest_cluster(same).tolist() == [True] * 4 + [False]
    assert not largest_cluster(torch.tensor([-1, -1])).any()


SPEC = ParamSpec((Entry("head.weight", (6, 5), "shared"), Entry("head.bias", (6,), "shared")))


def answers(shared: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    entries = SPEC.unflatten(shared)
    return (inputs.to(shared.dtype) @ entries["head.weight"].T + entries["head.bias"]).softmax(dim=1)


def deepsight_context(fixed: bool = True) -> RoundContext:
    model = torch.randn(36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return RoundContext(model=model, spec=SPEC, probe=Probe((5,), answers, fixed))


def deepsight(**changes):
    return make_aggregator("deepsight", **{"head": ("head.weight", "head.bias"), "samples": 500, **changes})


def backdoored() -> np.ndarray:
    """Eight clients that trained on all labels, three that pulled towards one only."""
    rng = np.random.default_rng(0)
    updates = rng.choice([-1, 1], (11, 36)) * rng.uniform(0.8, 1.2, (11, 36)) * 0.1
    updates[8:] = 0.001 * rng.normal(size=(3, 36))
    updates[8:, 10:15] = 0.8 + 0.01 * rng.normal(size=(3, 5))
    updates[8:, 32] = 0.8
    return updates


def test_deepsight_drops_the_cluster_of_suspects() -> None:
    updates = backdoored()
    found = deepsight()(torch.from_numpy(updates), deepsight_context())
    assert found.flagged.tolist() == [False] * 8 + [True] * 3
    bound = np.median(np.linalg.norm(updates, axis=1))
    kept = updates[:8] * np.minimum(1, bound / np.linalg.norm(updates[:8], axis=1))[:, None]
    assert np.allclose(found.vector, kept.mean(0))
    assert found.diagnostics["suspects"] == 3


def test_deepsight_judges_a_client_in_no_cluster_by_itself() -> None:
    """One attacker is no cluster of two, and neither is one honest client unlike the others: only one is a suspect."""
    updates = backdoored()[:9]
    updates[7] = np.random.default_rng(1).normal(size=36)
    found = deepsight()(torch.from_numpy(updates), deepsight_context())
    assert found.diagnostics["suspects"] == found.diagnostics["clusters"] == 1
    assert found.flagged.tolist() == [False] * 8 + [True]


def test_deepsight_accepts_clusters_of_which_less_than_a_third_are_suspects() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, -1, -1])
    suspect = torch.tensor([True, False, False, True, False, False, False, True, False])
    assert accepted(labels, suspect).tolist() == [False] * 3 + [True] * 4 + [False, True]


def test_deepsight_suspects_who_trained_on_half_as_many_labels_as_the_median() -> None:
    updates = backdoored()
    updates[8:, 15:25], updates[8:, 33:35] = updates[8:, 10:15].repeat(2, axis=1), 0.8
    found = deepsight()(torch.from_numpy(updates), deepsight_context())
    assert found.scores.tolist() == [-6.0] * 8 + [-3.0] * 3 and found.diagnostics["suspects"] == 3


def test_energies_and_division_differences_against_the_formula() -> None:
    updates = backdoored()
    weight, bias = updates[:, :30].reshape(11, 6, 5), updates[:, 30:]
    energy = (np.abs(bias) + np.abs(weight).sum(2)) ** 2
    energy /= energy.sum(1, keepdims=True)
    assert np.allclose(energies(torch.from_numpy(weight), torch.from_numpy(bias)), energy)
    trained = (energy > max(0.01, 1 / 6) * energy.max(1, keepdims=True)).sum(1)
    found = deepsight()(torch.from_numpy(updates), deepsight_context())
    assert np.array_equal(-found.scores.numpy(), trained)

    context = deepsight_context()
    differences = division_differences(Rows(torch.from_numpy(updates)), context, 700, 1)
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(0))))
    drawn = [rng.random((count, 5), dtype="float32") for count in (500, 200)]
    inputs = torch.from_numpy(np.concatenate(drawn))
    for row, found_row in zip(updates, differences[0], strict=True):
        ratio = answers(context.model + torch.from_numpy(row), inputs) / answers(context.model, inputs)
        assert np.allclose(ratio.mean(0), found_row)


def test_clients_in_no_cluster_are_apart_from_all() -> None:
    assert apart(torch.tensor([0, 0, -1, -1])).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]


def test_deepsight_is_refused_where_it_has_no_signal() -> None:
    with pytest.raises(NotApplicable, match="slots by chance"):
        deepsight()(torch.from_numpy(backdoored()), deepsight_context(fixed=False))
    with pytest.raises(NotApplicable, match=r"deepsight\.head = \['head\.bias', 'tail'\]"):
        deepsight(head=("head.bias", "tail"))(torch.from_numpy(backdoored()), deepsight_context())
    with pytest.raises(NotApplicable, match="deepsight needs model"):
        deepsight()(torch.from_numpy(backdoored()))


def test_cosines_of_the_deepsight_bias_follow_scipy() -> None:
    from strategies.rows import as_cosines

    rows = torch.from_numpy(backdoored()[:, 30:])
    assert np.allclose(1 - as_cosines(rows @ rows.T, rows.norm(dim=1)), cdist(rows, rows, "cosine"))
