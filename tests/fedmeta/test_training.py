"""Local meta-training: the formula, roles, isolation of clients, failures."""

import pytest
import torch

from fedmeta.cohort import LocalPlan
from fedmeta.errors import ConfigurationError, DataError
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.optimisers import SGD, Adam
from fedmeta.params import ParamSpec
from fedmeta.tasks import Batch, Episode
from fedmeta.training import train_cohort

torch.set_num_threads(1)
CLIENTS, STEPS, TASKS = 4, 3, 2
EXECUTIONS = ["loop", "vmap"]


def episode(*key, shots=2):
    generator = torch.Generator().manual_seed(hash(key) % 2**31)

    def batch(each):
        x = torch.randn(3 * each, 6, dtype=torch.float64, generator=generator)
        return Batch(x, torch.arange(3).repeat(each))

    return Episode(batch(shots), batch(2), torch.arange(3))


def sample(client, step, tasks):
    return [episode(client, step, task) for task in range(tasks)]


@pytest.fixture
def learner():
    return make_learner("maml", make_model("mlp", input_shape=(6,), hidden=(7, 5), ways=3).double(), inner_lr=0.3)


@pytest.fixture
def params(learner):
    return {name: value.double() for name, value in learner.init(torch.Generator().manual_seed(0)).items()}


def plan(execution="loop", optimiser=None, **more):
    return LocalPlan(STEPS, TASKS, optimiser or Adam(lr=0.01), execution=execution, **more)


def by_hand(learner, spec, params, client, optimiser=None, tasks_of=sample):
    """The few lines that the module is: shared and personal entries trained, frozen ones constant."""
    optimiser = optimiser or Adam(lr=0.01)
    trained = [entry.name for entry in spec.entries if entry.role != "frozen"]
    states = {name: optimiser.init(params[name]) for name in trained}
    now = dict(params)
    for step in range(STEPS):
        grads = [learner.meta_gradient(now, task)[0] for task in tasks_of(client, step, TASKS)]
        for name in trained:
            mean = torch.stack([grad[name] for grad in grads]).mean(dim=0)
            states[name], change = optimiser.step(states[name], mean)
            now[name] = now[name] + change
    return now


@pytest.mark.parametrize("chunk", [None, 1, 3, 100])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_the_formula(learner, params, execution, chunk):
    spec = ParamSpec.of(params)
    start = spec.flatten(params)
    kept = start.clone()
    result = train_cohort(learner, spec, start, CLIENTS, sample, plan(execution, chunk_size=chunk))
    assert result.failures == {} and result.updates.shape == (CLIENTS, spec.size())
    assert torch.equal(start, kept)
    for client in range(CLIENTS):
        expected = spec.flatten(by_hand(learner, spec, params, client)) - start
        torch.testing.assert_close(result.updates[client], expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_metrics_are_means_before_each_step(learner, params, execution):
    spec = ParamSpec.of(params)
    # A server step of zero: the same point is judged at every step.
    result = train_cohort(learner, spec, spec.flatten(params), 2, sample, plan(execution, SGD(lr=0.0)))
    for client in range(2):
        seen = [learner.meta_gradient(params, t)[1] for step in range(STEPS) for t in sample(client, step, TASKS)]
        for name in ("loss", "accuracy"):
            expected = torch.stack([metrics[name] for metrics in seen]).mean()
            torch.testing.assert_close(result.metrics[name][client], expected)
    assert torch.count_nonzero(result.updates) == 0


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_every_client_may_start_elsewhere(learner, params, execution):
    spec = ParamSpec.of(params)
    starts = torch.stack([spec.flatten(params) * (1 + 0.1 * client) for client in range(CLIENTS)])
    together = train_cohort(learner, spec, starts, CLIENTS, sample, plan(execution))
    for client in range(CLIENTS):
        alone = train_cohort(
            learner, spec, starts[client], 1, lambda _, step, tasks, c=client: sample(c, step, tasks), plan(execution)
        )
        torch.testing.assert_close(together.updates[client], alone.updates[0], rtol=1e-10, atol=1e-13)


def test_in_a_loop_the_others_do_not_matter_to_the_last_bit(learner, params):
    learner = make_learner("maml", make_model("mlp", input_shape=(6,), hidden=(7, 5), ways=3), inner_lr=0.3)
    spec = ParamSpec.of(params)
    start = spec.flatten(params).float()

    def narrow(client, step, tasks):
        return [
            Episode(Batch(t.support.x.float(), t.support.y), Batch(t.query.x.float(), t.query.y), t.classes)
            for t in sample(client, step, tasks)
        ]

    whole = train_cohort(learner, spec, start, CLIENTS, narrow, plan())
    for members in ([2], [3, 2], [2, 0, 1]):
        part = train_cohort(
            learner, spec, start, len(members), lambda c, step, tasks, m=members: narrow(m[c], step, tasks), plan()
        )
        for row, client in enumerate(members):
            assert torch.equal(part.updates[row], whole.updates[client])
            assert all(torch.equal(part.metrics[name][row], whole.metrics[name][client]) for name in whole.metrics)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_roles(learner, params, execution):
    spec = ParamSpec.of(params, personal=["head.*"], frozen=["body.1.*"])
    frozen = {name: params[name] for name in ("body.1.weight",)}
    personal = torch.stack([spec.flatten(params, "personal") * (client + 1) for client in range(2)])
    start = spec.flatten(params)
    result = train_cohort(learner, spec, start, 2, sample, plan(execution), personal=personal, frozen=frozen)
    assert result.updates.shape == (2, spec.size()) and result.personal.shape == (2, spec.size("personal"))
    for client in range(2):
        own = {**params, **spec.unflatten(personal[client], "personal")}
        expected = by_hand(learner, spec, own, client)
        torch.testing.assert_close(result.updates[client], spec.flatten(expected) - start, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(result.personal[client], spec.flatten(expected, "personal"), rtol=1e-9, atol=1e-13)
        assert torch.equal(expected["body.1.weight"], params["body.1.weight"])


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_reduction_sees_rows_of_tasks(learner, params, execution):
    spec, calls = ParamSpec.of(params), []

    def clipped_sum(rows, client, step):
        calls.append((client, step, tuple(rows.shape)))
        return (rows * (0.1 / rows.norm(dim=1, keepdim=True)).clamp(max=1)).sum(dim=0)

    start = spec.flatten(params)
    result = train_cohort(learner, spec, start, 2, sample, plan(execution, SGD(lr=1.0), reduce=clipped_sum))
    assert sorted(calls) == [(client, step, (TASKS, spec.size())) for client in range(2) for step in range(STEPS)]
    assert bool((result.updates.norm(dim=1) <= 0.1 * TASKS * STEPS + 1e-12).all())


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("when", [0, 2])
def test_one_failing_client_costs_one(learner, params, execution, when):
    spec = ParamSpec.of(params)
    start = spec.flatten(params)

    def failing(client, step, tasks):
        if client == 1 and step == when:
            raise DataError("no class has 4 examples")
        return sample(client, step, tasks)

    result = train_cohort(learner, spec, start, 3, failing, plan(execution))
    healthy = train_cohort(learner, spec, start, 3, sample, plan(execution))
    assert list(result.failures) == [1] and isinstance(result.failures[1], DataError)
    assert torch.isnan(result.updates[1]).all() and torch.isnan(result.metrics["loss"][1])
    for client in (0, 2):
        torch.testing.assert_close(result.updates[client], healthy.updates[client], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(result.metrics["loss"][client], healthy.metrics["loss"][client])


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_failure_within_the_computation_is_attributed(learner, params, execution):
    spec = ParamSpec.of(params)

    def wrong_shape(client, step, tasks):
        drawn = sample(client, step, tasks)
        if client != 2:
            return drawn
        return [t._replace(query=t.query._replace(x=t.query.x[:, :4])) for t in drawn]

    choice = "auto" if execution == "vmap" else "loop"  # unequal shapes are refused under an explicit vmap
    result = train_cohort(learner, spec, spec.flatten(params), 3, wrong_shape, plan(choice))
    assert list(result.failures) == [2] and isinstance(result.failures[2], RuntimeError)


def test_every_client_may_fail(learner, params):
    def nothing(client, step, tasks):
        return []

    for execution in EXECUTIONS:
        result = train_cohort(
            learner, ParamSpec.of(params), ParamSpec.of(params).flatten(params), 2, nothing, plan(execution)
        )
        assert sorted(result.failures) == [0, 1] and torch.isnan(result.updates).all()


def test_unequal_clients_under_auto_and_vmap(learner, params):
    spec = ParamSpec.of(params)
    start = spec.flatten(params)

    def unequal(client, step, tasks):
        return [episode(client, step, task, shots=1 + client) for task in range(tasks)]

    auto, loop = (train_cohort(learner, spec, start, 2, unequal, plan(execution)) for execution in ("auto", "loop"))
    torch.testing.assert_close(auto.updates, loop.updates, rtol=1e-12, atol=1e-14)
    with pytest.raises(ConfigurationError, match="equal ways, shots and queries"):
        train_cohort(learner, spec, start, 2, unequal, plan("vmap"))


def test_scale_and_counts_of_one(learner, params):
    spec = ParamSpec.of(params)
    start = spec.flatten(params)
    one = LocalPlan(1, 1, SGD(lr=0.1), execution="loop")
    half = LocalPlan(1, 1, SGD(lr=0.1), scale=0.5, execution="loop")
    whole, part = (train_cohort(learner, spec, start, 1, sample, each).updates for each in (one, half))
    torch.testing.assert_close(part, whole / 2)


@pytest.mark.parametrize(
    ("personal", "frozen", "message"),
    [(None, {"body.1.weight": 0}, "personal parameters must be"), (torch.zeros(1, 18), None, "frozen parameters")],
)
def test_missing_values_are_named(learner, params, personal, frozen, message):
    spec = ParamSpec.of(params, personal=["head.*"], frozen=["body.1.weight"])
    frozen = frozen and {"body.1.weight": params["body.1.weight"]}
    with pytest.raises(ValueError, match=message):
        train_cohort(learner, spec, spec.flatten(params), 1, sample, plan(), personal=personal, frozen=frozen)


def test_wrong_vector(learner, params):
    with pytest.raises(ValueError, match=r"shared parameters \[3\] for 2 clients"):
        train_cohort(learner, ParamSpec.of(params), torch.zeros(3), 2, sample, plan())


def limited(limit):
    """`over_clients` on a machine that holds so many tasks at once; beyond, torch's own allocator fails."""
    from fedmeta.execution import over_clients

    def run(function, params, episodes, chunk_size=None):
        at_once = len(episodes) * min(len(episodes[0]), chunk_size or len(episodes[0]))
        if at_once > limit:
            torch.empty(1 << 60)
        return over_clients(function, params, episodes, chunk_size)

    return run


def test_memory_that_runs_out_halves_the_chunk_once(learner, params, monkeypatch):
    spec = ParamSpec.of(params)
    start = spec.flatten(params)
    whole = train_cohort(learner, spec, start, CLIENTS, sample, plan("vmap"))
    monkeypatch.setattr("fedmeta.cohort_batches.over_clients", limited(4))
    with pytest.warns(UserWarning, match="8 tasks at once do not fit into memory: going on with 4") as said:
        halved = train_cohort(learner, spec, start, CLIENTS, sample, plan("vmap"))
    assert len(said) == 1 and halved.failures == {}
    torch.testing.assert_close(halved.updates, whole.updates, rtol=1e-9, atol=1e-13)


def test_memory_that_holds_not_even_one_client_is_each_clients_failure(learner, params, monkeypatch):
    spec = ParamSpec.of(params)
    monkeypatch.setattr("fedmeta.cohort_batches.over_clients", limited(0))
    with pytest.warns(UserWarning, match="going on with 4"):
        result = train_cohort(learner, spec, spec.flatten(params), CLIENTS, sample, plan("vmap"))
    assert sorted(result.failures) == list(range(CLIENTS)) and "DefaultCPUAllocator" in str(result.failures[0])
