"""Loop and vmap are the same learner: every learner, both nets, training and evaluation."""

import pytest
import torch

from fedmeta.evaluation import evaluate
from fedmeta.execution import over_clients, over_tasks
from fedmeta.learners import LEARNERS, make_learner
from fedmeta.models import make_model
from fedmeta.tasks import Batch, Episode

WAYS, CLASSES = 3, 7
NETS = {
    "conv-batch": ("conv4", {"filters": 4, "normalisation": "batch"}),
    "conv-group": ("conv4", {"filters": 4, "normalisation": "group", "groups": 2}),
    "mlp": ("mlp", {"hidden": (9, 8), "normalisation": "batch"}),
}
# Adam divides a gradient by its own size: rounding of a near-zero one is magnified. It has a test of its own.
SETTINGS = {
    "reptile": {"inner_optimiser": "sgd", "inner_lr": 0.1},
    "imaml": {"inner_steps": 3, "cg_steps": 2},
    "matchingnet": {"full_context": True, "learn_temperature": True, "processing_steps": 2},
    "abml": {"samples": 2, "test_samples": 2},
    "lstm_meta": {"inner_steps": 2},
    "pfedme": {"inner_steps": 2},
}
TOLERANCE = {
    "imaml": 1e-12,  # conjugate gradients magnify rounding
    "perfedavg": 1e-9,  # so does a difference of two gradients, divided by its small length
}
ADDED = ("boil", "imaml", "perfedavg", "matchingnet", "lstm_meta", "abml", "pfedme", "ditto")
"""Of what differs between nets one suffices for these."""
NAMES = [name for name in LEARNERS.entries() if "classification" in LEARNERS.get(name).serves]
EVERY = [(name, net) for name in NAMES for net in NETS if name not in ADDED or net == "conv-group"]


def tolerance(name, net="mlp"):
    return TOLERANCE.get(name, 1e-13 if net == "conv-group" else 1e-14)


def episodes(count):
    generator = torch.Generator().manual_seed(3)

    def batch(each):
        x = torch.randn(WAYS * each, 1, 12, 12, generator=generator, dtype=torch.float64)
        return Batch(x, torch.arange(WAYS).repeat(each))

    return [Episode(batch(2), batch(2), torch.randperm(CLASSES, generator=generator)[:WAYS]) for _ in range(count)]


def build(name, net, **settings):
    outputs = {"ways": WAYS, "classes": CLASSES, "embedding": None}[LEARNERS.get(name).head]
    model, shape = NETS[net]
    network = make_model(model, input_shape=(1, 12, 12), ways=outputs, **shape).double()
    learner = make_learner(name, network, **{**SETTINGS.get(name, {}), **settings})
    return learner, {key: value.double() for key, value in learner.init(torch.Generator().manual_seed(0)).items()}


def assert_close(a, b, tolerance=1e-14):
    """Relative error of the whole, as one vector; group normalisation alone is worse than 2e-15, up to 4e-14."""
    difference = sum(((a[key] - b[key]) ** 2).sum() for key in a).sqrt()
    assert float(difference / sum((a[key] ** 2).sum() for key in a).sqrt()) < tolerance


@pytest.mark.parametrize(("name", "net"), EVERY)
def test_meta_gradients_over_tasks(name, net):
    learner, params = build(name, net)
    tasks = episodes(4)
    grads, metrics = over_tasks(learner.meta_gradient, params, tasks, "loop")
    for chunk in (None, 3):
        vmapped, vmapped_metrics = over_tasks(learner.meta_gradient, params, tasks, "vmap", chunk)
        assert_close(grads, vmapped, tolerance(name, net))
        assert_close(metrics, vmapped_metrics, tolerance(name))


@pytest.mark.parametrize("name", NAMES)
def test_meta_gradients_over_clients(name):
    learner, params = build(name, "mlp")
    tasks = episodes(6)
    own = [{key: value * (1 + 0.1 * client) for key, value in params.items()} for client in range(3)]
    stacked = {key: torch.stack([each[key] for each in own]) for key in params}
    grads, _ = over_clients(learner.meta_gradient, stacked, [tasks[0:2], tasks[2:4], tasks[4:6]], chunk_size=1)
    for client in range(3):
        expected, _ = over_tasks(learner.meta_gradient, own[client], tasks[2 * client : 2 * client + 2], "loop")
        assert_close(expected, {key: value[client] for key, value in grads.items()}, tolerance(name))


@pytest.mark.parametrize(("name", "net"), EVERY)
def test_evaluation(name, net):
    learner, params = build(name, net)
    loop, vmap = (evaluate(learner, params, episodes(3), (0, 1, 4), way) for way in ("loop", "vmap"))
    assert_close({"loss": loop.loss}, {"loss": vmap.loss}, tolerance(name, net))
    assert torch.equal(loop.score, vmap.score)
    assert loop.loss.shape == loop.score.shape == (3, 3)


@pytest.mark.parametrize("name", ["maml", "fomaml", "anil", "metasgd", "reptile", "fedavg", "abml", "ditto"])
def test_regression(make_case, name):
    case = make_case(name, "regression")
    loop, vmap = (
        over_tasks(case.learner.meta_gradient, case.params, case.episodes, way)[0] for way in ("loop", "vmap")
    )
    assert_close(loop, vmap)


def test_reptile_with_adam():
    learner, params = build("reptile", "conv-group", inner_optimiser="adam", inner_lr=1e-3)
    loop, vmap = (over_tasks(learner.meta_gradient, params, episodes(3), way)[0] for way in ("loop", "vmap"))
    assert_close(loop, vmap, 1e-9)
