"""The leak check on real training: single examples come back whole, and noise hides them."""

import pytest
import torch

from fedmeta.audit.leak import leak_check
from fedmeta.cohort import LocalPlan
from fedmeta.errors import ConfigurationError
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.optimisers import SGD
from fedmeta.params import ParamSpec
from fedmeta.tasks import Batch, Episode
from fedmeta.training import train_cohort


def attacked(
    learner_name, count, levels=(0.0, 1.0), model=("mlp", {"hidden": [32], "normalisation": "none"}), **settings
):
    torch.manual_seed(0)
    x, y = torch.randn(count, 1, 6, 6), torch.arange(count) % 5
    model = make_model(model[0], input_shape=(1, 6, 6), ways=5, **model[1])
    learner = make_learner(learner_name, model, **settings)
    params = learner.init(torch.Generator().manual_seed(0))
    spec = ParamSpec.of(params)
    episode = Episode(Batch(x, y), Batch(x, y), torch.arange(5))
    plan = LocalPlan(1, 1, SGD(lr=1.0), execution="loop")
    update = train_cohort(learner, spec, spec.flatten(params), 1, lambda *_: [episode], plan).updates[0]
    return leak_check(update, spec, params, x, levels)


@pytest.mark.parametrize(
    ("learner", "settings"),
    [
        ("reptile", {"inner_optimiser": "sgd", "inner_lr": 0.05, "inner_steps": 5, "examples": "support"}),
        ("fomaml", {"inner_lr": 0.05}),
        ("maml", {"inner_lr": 0.05}),
        ("fedavg", {}),
    ],
)
def test_a_single_example_is_read_off_the_update_and_noise_hides_it(learner, settings):
    found = attacked(learner, 1, **settings)
    assert found.cosines[0, 0] > 0.999 > 0.8 > found.cosines[1, 0]
    assert found.found.shape == (2, 1, 36)


def test_more_noise_shows_less():
    found = attacked("fedavg", 1, levels=(0.0, 0.01, 0.1, 1.0))
    means = found.cosines.mean(dim=1)
    assert (means[:-1] >= means[1:]).all() and means[0] > 0.99


def test_many_examples_mix_and_some_still_show():
    found = attacked("fedavg", 10)
    assert found.cosines[0].min() < 0.99 and found.cosines[0].max() > 0.6


def test_convolutions_have_no_such_layer():
    with pytest.raises(ConfigurationError, match="first layer is linear"):
        attacked("fedavg", 1, model=("conv4", {"filters": 4}))
