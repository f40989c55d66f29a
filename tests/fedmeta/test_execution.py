"""The choice of execution, and the mapping of functions over tasks and clients."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from fedmeta.errors import ConfigurationError
from fedmeta.execution import over_clients, over_tasks, resolve, resolved_with_reason, stack, stackable
from fedmeta.models import make_model
from fedmeta.tasks import Batch, Episode

torch.set_num_threads(1)
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def episode(value, shots=1):
    x = torch.full((2 * shots, 3), float(value))
    return Episode(Batch(x, torch.arange(2).repeat(shots)), Batch(x, torch.arange(2).repeat(shots)), torch.arange(2))


def scaled(params, task):
    return params["w"] * task.support.x.sum(), {"ways": task.classes.sum()}


PARAMS = {"w": torch.tensor([1.0, 10.0])}


@pytest.mark.parametrize(
    ("model", "device", "expected", "why"),
    [
        (make_model("sinusoid"), CPU, "vmap", "a net of 1,761 parameters is so small"),
        (make_model("mlp", ways=5), CPU, "loop", "a net of 247,109 parameters gains little"),
        (make_model("conv4", filters=4, ways=5), CPU, "loop", "a net with convolutions gains little"),
        (make_model("conv4", filters=4, ways=5), GPU, "vmap", "a GPU is fast only"),
        (nn.LSTM(2, 2), GPU, "loop", "a recurrent net cannot"),
    ],
)
def test_auto(model, device, expected, why):
    assert resolve("auto", model, device) == expected
    assert resolve("loop", model, device) == "loop" and resolve("vmap", model, device) == "vmap"
    reason = resolved_with_reason("auto", model, device)[1]
    assert f"({expected}): " in reason and why in reason and reason.count(":") == 1, "one sentence"
    assert resolved_with_reason("loop", model, device)[1].endswith("client.execution asks for it")


@pytest.mark.parametrize(("execution", "chunk"), [("loop", None), ("vmap", None), ("vmap", 2), ("vmap", 10)])
def test_over_tasks(execution, chunk):
    rows, extra = over_tasks(scaled, PARAMS, [episode(value) for value in (1, 2, 3)], execution, chunk)
    assert rows.tolist() == [[6, 60], [12, 120], [18, 180]]
    assert extra["ways"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("chunk", [None, 1, 5])
def test_over_clients(chunk):
    params = {"w": torch.tensor([[1.0], [10.0]])}
    rows, _ = over_clients(scaled, params, [[episode(1), episode(2)], [episode(3), episode(4)]], chunk)
    assert rows.tolist() == [[[6], [12]], [[180], [240]]]


def test_unequal_episodes():
    tasks = [episode(1), episode(1, shots=2)]
    assert not stackable(tasks) and stackable(tasks[:1] * 2)
    assert over_tasks(scaled, PARAMS, tasks, "loop")[0].shape == (2, 2)
    with pytest.raises(ConfigurationError, match="equal shapes"):
        over_tasks(scaled, PARAMS, tasks, "vmap")
    with pytest.raises(ConfigurationError, match="same number of tasks"):
        over_clients(scaled, {"w": torch.ones(2, 1)}, [[episode(1)], [episode(1)] * 2])


def test_stack_refuses_unequal_structures():
    with pytest.raises((ValueError, KeyError)):
        stack([(torch.ones(1),), (torch.ones(1), torch.ones(1))])


def test_a_loop_never_imports_the_compiler():
    code = (
        "import sys, torch\n"
        "from fedmeta.learners import make_learner; from fedmeta.models import make_model\n"
        "from fedmeta.optimisers import Adam; from fedmeta.params import ParamSpec\n"
        "from fedmeta.tasks import Batch, Episode; from fedmeta.cohort import LocalPlan\n"
        "from fedmeta.training import train_cohort\n"
        "learner = make_learner('maml', make_model('conv4', input_shape=(1, 8, 8), filters=4, ways=2, groups=2))\n"
        "params = learner.init(torch.Generator().manual_seed(0)); spec = ParamSpec.of(params)\n"
        "batch = Batch(torch.randn(4, 1, 8, 8), torch.arange(2).repeat(2))\n"
        "task = Episode(batch, batch, torch.arange(2))\n"
        "result = train_cohort(learner, spec, spec.flatten(params), 1, lambda *_: [task], LocalPlan(1, 1, Adam()))\n"
        "assert not result.failures, result.failures\n"
        "print('torch._dynamo' in sys.modules, 'pydantic' in sys.modules, 'scipy' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "False", "False"]
