"""A smooth net in float64, every learner around it, and a hand-written twin of the net."""

import pytest
import torch
from torch import Tensor, nn

from fedmeta.learners import make_learner
from fedmeta.models.network import Network
from fedmeta.tasks import Batch, Episode

torch.set_num_threads(1)  # two threads on a busy machine are ten times slower on nets as small as these

WAYS, CLASSES, INPUTS = 3, 8, 6

SETTINGS: dict[str, dict] = {
    "maml": {"inner_lr": 0.5, "inner_steps": 2},
    "fomaml": {"inner_lr": 0.5, "inner_steps": 2},
    "anil": {"inner_lr": 0.5, "inner_steps": 2},
    "metasgd": {"inner_lr": 0.5, "inner_steps": 2},
    "reptile": {"inner_lr": 0.3, "inner_steps": 3, "inner_batch": 4, "inner_optimiser": "sgd"},
    "protonet": {},
    "fedavg": {"test_steps": 3},
    "boil": {"inner_lr": 0.5, "inner_steps": 2},
    "imaml": {"inner_lr": 0.3, "inner_steps": 5, "cg_steps": 3},
    "perfedavg": {"inner_lr": 0.5},
    "matchingnet": {"learn_temperature": True},
    "lstm_meta": {"inner_lr": 0.3, "inner_steps": 2},
    "abml": {
        "inner_lr": 0.5,
        "inner_steps": 2,
        "initial_sigma": 0.1,
        "samples": 2,
        "test_samples": 3,
    },
    "pfedme": {"inner_lr": 0.05, "inner_steps": 3, "regularisation": 2.0},
    "ditto": {"inner_lr": 0.3},
}
OUTPUTS = {"protonet": None, "matchingnet": None, "fedavg": CLASSES}


class Case:
    """One learner, its parameters in general position, and an episode; `name` as in the registry."""

    def __init__(self, name: str, task: str = "classification", extra: nn.Module | None = None, **settings) -> None:
        generator = torch.Generator().manual_seed(7)
        outputs = OUTPUTS.get(name, WAYS) if task == "classification" else 2
        self.name = name
        self.model = smooth_net(outputs)
        if extra is not None:
            self.model.extra = extra
        self.learner = make_learner(name, self.model, task, **{**SETTINGS[name], **settings})
        self.params = {key: value.double() for key, value in self.learner.init(generator).items()}
        for key, value in self.params.items():
            if key.startswith("alpha."):
                value += 0.1 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        self.episode = episode(generator, task)
        self.episodes = [episode(generator, task) for _ in range(3)]


def smooth_net(outputs: int | None) -> Network:
    """Two tanh layers; `forward_by_hand` is the same function."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(INPUTS, 7), nn.Tanh(), nn.Linear(7, 4), nn.Tanh())
    return Network(body, None if outputs is None else nn.Linear(4, outputs)).double()


def forward_by_hand(p: dict[str, Tensor], x: Tensor) -> Tensor:
    h = torch.tanh(x @ p["body.1.weight"].T + p["body.1.bias"])
    h = torch.tanh(h @ p["body.3.weight"].T + p["body.3.bias"])
    return h @ p["head.weight"].T + p["head.bias"] if "head.weight" in p else h


def episode(generator: torch.Generator, task: str = "classification", shots: int = 2, queries: int = 3) -> Episode:
    """Random inputs, shot by shot."""

    def batch(each: int) -> Batch:
        x = torch.randn(WAYS * each, INPUTS, generator=generator, dtype=torch.float64)
        if task == "regression":
            return Batch(x, torch.randn(WAYS * each, 2, generator=generator, dtype=torch.float64))
        return Batch(x, torch.arange(WAYS).repeat(each))

    classes = torch.randperm(CLASSES, generator=generator)[: WAYS if task == "classification" else 0]
    return Episode(batch(shots), batch(queries), classes)


@pytest.fixture
def make_case():
    return Case


@pytest.fixture(params=list(SETTINGS))
def case(request) -> Case:
    """Every learner in turn."""
    return Case(request.param)


@pytest.fixture
def by_hand():
    return forward_by_hand


@pytest.fixture
def relative_error():
    """The norm of the difference of two sets of tensors, over the norm of the second."""

    def measure(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
        assert a.keys() == b.keys()
        difference = sum(((a[name] - b[name]) ** 2).sum() for name in a) ** 0.5
        return float(difference / sum((b[name] ** 2).sum() for name in a) ** 0.5)

    return measure
