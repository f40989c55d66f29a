"""The privacy section of an experiment: claims that would not hold are refused, in words to act on."""

import pytest

from fedmeta.errors import ConfigurationError
from server.configuration import load

CLIENT = {"unit": "client", "noise_multiplier": 1.0}
TASK = {"unit": "task", "noise_multiplier": 1.0}
EXAMPLE = {"unit": "example", "placement": "local", "noise_multiplier": 1.0}
PLAIN = {"model": {"name": "conv4", "normalisation": "group"}, "learner": {"name": "reptile"}}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"privacy": {**CLIENT, "noise_multiplier": -1.0}}, ["privacy.noise_multiplier", "-1"]),
        ({"privacy": {**CLIENT, "delta": 1.0}}, ["privacy.delta", "less than 1"]),
        ({"privacy": {"unit": "client", "target_epsilon": 0.0}}, ["privacy.target_epsilon", "greater than 0"]),
        ({"privacy": {**CLIENT, "budget": 0.0}}, ["privacy.budget", "greater than 0"]),
        ({"privacy": {**CLIENT, "clip_norm": 0.0}}, ["privacy.clip_norm"]),
        ({"privacy": {**CLIENT, "clip_norm": float("inf")}}, ["privacy.clip_norm", "finite"]),
        ({"privacy": {"unit": "client"}}, ["noise_multiplier and privacy.target_epsilon"]),
        ({"privacy": {**CLIENT, "target_epsilon": 1.0}}, ["noise_multiplier and privacy.target_epsilon"]),
        ({"privacy": {"unit": "person"}}, ["privacy.unit", "'person'"]),
        ({"privacy": {**CLIENT, "noise": 1.0}}, ["privacy.noise"]),
        ({"privacy": EXAMPLE, "learner": {"name": "maml"}}, ["not available for learner 'maml'", "Hessian", "fomaml"]),
        ({"privacy": EXAMPLE}, ["'protonet'", "prototype"]),
        ({**PLAIN, "privacy": {**EXAMPLE, "placement": "central"}}, ["placement = 'local'"]),
        ({"privacy": EXAMPLE, "learner": {"name": "reptile"}}, ["normalisation = 'batch'", "group"]),
        ({**PLAIN, "privacy": {**EXAMPLE, "per_layer": True}}, ["per_layer"]),
        ({"privacy": CLIENT, "server": {"weighting": "tasks"}}, ["largest weight", "uniform"]),
        ({"privacy": CLIENT, "server": {"aggregator": {"name": "median"}}}, ["calibrated to a sum", "local"]),
        ({"privacy": CLIENT, "server": {"preaggregators": [{"name": "nnm", "f": 1}]}}, ["preaggregators", "local"]),
        ({"privacy": {**TASK}, "client": {"steps": 2}}, ["client.steps = 1", "local"]),
        ({"privacy": {**TASK}, "client": {"optimiser": {"name": "adam"}}}, ["plain sgd"]),
        ({"privacy": TASK, "client": {"optimiser": {"name": "sgd", "lr": 0.0}}}, ["client.optimiser.lr = 0", "> 0"]),
        (
            {"privacy": TASK, "sharing": {"personal": ["head.*"]}, "learner": {"name": "maml"}},
            ["sharing.personal", "without noise", "placement = 'local'"],
        ),
        ({"privacy": {**TASK, "task_pool": 2}}, ["tasks_per_step = 4 must be <= privacy.task_pool = 2"]),
        ({"privacy": {**CLIENT, "task_pool": 9}}, ["task_pool is for privacy.unit = 'task'"]),
        ({"privacy": {**TASK, "clipping": "adaptive"}}, ["adaptive", "unit = 'client'"]),
        ({"privacy": {**CLIENT, "placement": "local", "clipping": "adaptive"}}, ["adaptive", "central"]),
    ],
)
@pytest.mark.filterwarnings("ignore:server.weighting")
def test_refused(raw, words):
    with pytest.raises(ConfigurationError) as caught:
        load(raw)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"privacy": {**CLIENT, "noise_multiplier": 0.0}}, "there is no privacy"),
        ({"privacy": {**CLIENT, "share_metrics": True}}, "outside the guarantee"),
        ({"privacy": {"noise_multiplier": 1.0}}, "has no effect: privacy.unit = 'none'"),
        ({"privacy": {**CLIENT, "count_noise": 1.0}}, "count_noise has no effect"),
        ({"privacy": {**CLIENT, "quantile": 0.9, "clip_rate": 0.1}}, "quantile, privacy.clip_rate has no effect"),
        ({"privacy": {**TASK, "task_pool": 9}, "client": {"execution": "vmap"}}, "taken one by one"),
    ],
)
def test_warned(raw, words):
    with pytest.warns(UserWarning, match=words):
        load(raw)


@pytest.mark.parametrize("privacy", [{**TASK, "placement": "local"}, CLIENT])
def test_personal_parameters_are_covered_by_local_noise_and_by_whole_clients(privacy):
    """A client's own are noised at every step, or decide nothing but the updates of that client."""
    assert load({"privacy": privacy, "sharing": {"personal": ["head.*"]}, "learner": {"name": "maml"}})


def test_without_privacy_the_section_has_no_part_in_the_hash():
    """Runs from before there was a section keep their hash, and so can be resumed."""
    assert load({}).hash == load({"privacy": {"clip_norm": 5.0}}).hash
    assert load({}).hash != load({"privacy": CLIENT}).hash != load({"privacy": {**CLIENT, "clip_norm": 2.0}}).hash
