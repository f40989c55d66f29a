"""The paper's regression (Finn et al. 2017, section 5.1), small: MAML adapts where joint training cannot."""

import math

import pytest
import torch

from fedmeta.cohort import LocalPlan
from fedmeta.evaluation import evaluate
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.optimisers import Adam
from fedmeta.params import ParamSpec
from fedmeta.tasks import Batch, Episode
from fedmeta.training import train_cohort


def wave(generator, queries=10):
    """Ten shots of a sine of random amplitude and phase."""
    amplitude = 0.1 + 4.9 * torch.rand((), generator=generator)
    phase = math.pi * torch.rand((), generator=generator)

    def batch(count):
        x = 10 * torch.rand(count, 1, generator=generator) - 5
        return Batch(x, amplitude * torch.sin(x - phase))

    return Episode(batch(10), batch(queries), torch.zeros(0, dtype=torch.int64))


@pytest.fixture(scope="module")
def curves():
    """Mean squared error after 0, 1 and 10 steps on 100 unseen waves, after 300 steps of 25 waves."""

    def curve(name):
        learner = make_learner(name, make_model("sinusoid"), "regression", inner_lr=0.01)
        params = learner.init(torch.Generator().manual_seed(0))
        spec, generator = ParamSpec.of(params), torch.Generator().manual_seed(1)
        plan = LocalPlan(300, 25, Adam(lr=3e-3))
        start = spec.flatten(params)
        trained = train_cohort(
            learner, spec, start, 1, lambda c, s, tasks: [wave(generator) for _ in range(tasks)], plan
        )
        assert trained.failures == {}
        unseen = torch.Generator().manual_seed(2)
        tasks = [wave(unseen, queries=100) for _ in range(100)]
        return evaluate(learner, spec.unflatten(start + trained.updates[0]), tasks, (0, 1, 10)).score.mean(dim=1)

    return {name: curve(name) for name in ("maml", "fedavg")}


def test_one_step_of_maml_is_far_below_one_step_of_the_baseline(curves):
    assert curves["maml"][1] < 0.75 * curves["fedavg"][1]
    assert curves["maml"][1] < 0.6 * curves["maml"][0]


def test_ten_steps_go_on_improving(curves):
    assert curves["maml"][2] < 0.75 * curves["maml"][1]
    assert curves["maml"][2] < 0.6 * curves["fedavg"][2]
