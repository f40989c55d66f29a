"""Faults that other frameworks had (F01, F02, F16): counts of one, parameters that take no part, zero as a value."""

import pytest
import torch
from torch import nn

from fedmeta.execution import over_tasks
from fedmeta.learners import LEARNERS, make_learner
from fedmeta.models.network import Network
from fedmeta.tasks import Batch, Episode

NAMES = [name for name in LEARNERS.entries() if "classification" in LEARNERS.get(name).serves]
STEPLESS = ("protonet", "matchingnet")


@pytest.mark.parametrize("execution", ["loop", "vmap"])
def test_f01_protonet_finds_the_query_that_equals_its_support(execution):
    x = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    batch = Batch(x, torch.arange(5))
    learner = make_learner("protonet", Network(nn.Flatten(), None))
    tasks = [Episode(batch, batch, torch.arange(5))]
    params = {"none": torch.zeros(())}  # an embedding without parameters still needs a device

    def accuracy(params, task):
        adapted = learner.adapt({}, task.support, 5)
        return learner.task.score(learner.predict(adapted, task.query.x), task.query.y)

    assert over_tasks(accuracy, params, tasks, execution).item() == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_f01_predicts_any_number_of_inputs(make_case, name):
    case = make_case(name)
    adapted = case.learner.adapt(case.params, case.episode.support, 3)
    together = case.learner.predict(adapted, case.episode.query.x)
    alone = torch.cat([case.learner.predict(adapted, x[None]) for x in case.episode.query.x])
    assert together.shape == (9, 3)
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("execution", ["loop", "vmap"])
@pytest.mark.parametrize("name", NAMES)
def test_f02_an_unused_layer_gets_zeros_and_changes_nothing(make_case, relative_error, name, execution):
    plain, extended = make_case(name), make_case(name, extra=nn.Linear(3, 3).double())
    params = {key: plain.params.get(key, value) for key, value in extended.params.items()}
    grads, _ = over_tasks(extended.learner.meta_gradient, params, plain.episodes, execution)
    reference, _ = over_tasks(plain.learner.meta_gradient, plain.params, plain.episodes, execution)
    assert any("extra" in key for key in grads)
    assert all(value.abs().max() == 0 for key, value in grads.items() if "extra" in key)
    assert relative_error({key: grads[key] for key in reference}, reference) < 1e-15


@pytest.mark.parametrize("name", NAMES)
def test_f16_zero_steps_is_a_value(make_case, name):
    settings = {} if name in STEPLESS else {"test_steps": 0}
    case = make_case(name, **settings)
    steps = 0 if name in STEPLESS else None
    adapted = case.learner.adapt(case.params, case.episode.support, 3, steps)
    logits = case.learner.predict(adapted, case.episode.query.x)
    if name in (*STEPLESS, "fedavg"):  # the support is unseen, and these know no class without it
        assert torch.all(logits == logits[:, :1])
        assert case.learner.task.score(logits, case.episode.query.y).item() == pytest.approx(1 / 3)
    else:
        if name == "abml":  # a mean over weights around theta: of one draw without spread it is theta's
            case = make_case(name, **settings, initial_sigma=1e-12, test_samples=1)
            logits = case.learner.predict(
                case.learner.adapt(case.params, case.episode.support, 3), case.episode.query.x
            )
        own = {key for key, _ in case.model.named_parameters()}
        theta = {key: value for key, value in case.params.items() if key in own}
        plain = torch.func.functional_call(case.model, theta, (case.episode.query.x,))
        torch.testing.assert_close(logits, plain.log_softmax(dim=1) if name == "abml" else plain)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in STEPLESS])
def test_trajectory_and_adapt_agree(make_case, name):
    case = make_case(name)
    states = list(case.learner.trajectory(case.params, case.episode.support, 3, (0, 1, 4)))
    for count, state in zip((0, 1, 4), states, strict=True):
        adapted = case.learner.adapt(case.params, case.episode.support, 3, count)
        assert all(torch.equal(state[key], adapted[key]) for key in state)
        assert all(not value.requires_grad for value in state.values())


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_not_changed(make_case, name):
    case = make_case(name)
    before = {key: value.clone() for key, value in case.params.items()}
    case.learner.meta_gradient(case.params, case.episode)
    case.learner.adapt(case.params, case.episode.support, 3)
    assert all(torch.equal(before[key], value) and not value.requires_grad for key, value in case.params.items())
