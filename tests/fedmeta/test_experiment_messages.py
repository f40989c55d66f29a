"""What a user reads when a key is wrong: the key as they know it, its value, and what it must be."""

import pytest

from fedmeta.errors import ConfigurationError
from fedmeta.experiment_file import parse_override
from server.configuration import load


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("attack.fraction=2", "attack.fraction = 2 must be less than or equal to 1 (share of the training clients"),
        ("client.chunk_size=0", "client.chunk_size = 0 must be greater than or equal to 1 or 'auto' (tasks batched"),
        ("engine.client_timeout=0", "engine.client_timeout = 0 must be greater than 0 (longest turn of one client"),
        ("server.aggregator=krum", "server.aggregator = 'krum' must be a table: set server.aggregator.name to that"),
        ("learner.nam=maml", "unknown key 'learner.nam'; did you mean 'learner.name'?"),
        ("server.rounds=abc", "server.rounds = 'abc' must be a valid integer (federated rounds [rounds])"),
        ("name=../x", "name = '../x' does not fit (of the run directory: letters, digits, . _ -): it must match ^["),
        ("server.round=3", "unknown key 'server.round'; did you mean 'server.rounds'?"),
    ],
)
def test_a_wrong_key_is_explained(setting: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({}, dict([parse_override(setting)]))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("place", "key"), [("privacy", "unit"), ("server", "root"), ("attack", "method"), ("model", "normalisation")]
)
def test_none_is_chosen_where_it_is_a_choice_and_else_takes_a_value_away(place: str, key: str) -> None:
    dotted = f"{place}.{key}.name" if key == "method" else f"{place}.{key}"
    found = getattr(load({}, dict([parse_override(f"{dotted}=none")])), place)
    assert (found.parameters if place == "model" else found.model_dump())[key] in ("none", {"name": "none"})
    assert load({}, dict([parse_override("engine.actors=none")])).engine.actors is None
