"""The threat model of an experiment: who is malicious, and what cannot be or does nothing."""

import warnings

import pytest

from fedmeta.attacks.threat import is_active, malicious_clients
from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from server.configuration import load

FLIP = {"method": {"name": "sign_flip", "scale": 10}, "knowledge": "omniscient"}


def quietly(attack: dict, **overrides) -> Experiment:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load({"attack": attack}, {key.replace("__", "."): value for key, value in overrides.items()})


def test_malicious_clients_follow_the_seed_and_larger_fractions_add_to_smaller_ones() -> None:
    train = range(3, 53)
    found = [malicious_clients(quietly(FLIP, attack__fraction=share), train) for share in (0.0, 0.1, 0.2, 1.0)]
    assert [len(clients) for clients in found] == [0, 5, 10, 50]
    assert found[0] < found[1] < found[2] < found[3] == frozenset(train)
    assert malicious_clients(quietly(FLIP), reversed(train)) == found[2]
    assert malicious_clients(quietly(FLIP, seed=1), train) != found[2]
    assert malicious_clients(load({}), train) == frozenset()


def test_a_fraction_of_no_client_is_told() -> None:
    with pytest.warns(UserWarning, match=r"0\.05 of 8 training clients is none"):
        assert malicious_clients(quietly(FLIP, attack__fraction=0.05), range(8)) == frozenset()


def test_the_schedule_has_both_ends() -> None:
    experiment = quietly({**FLIP, "start": 3, "stop": 5})
    assert [round for round in range(8) if is_active(experiment, round)] == [3, 4, 5]
    assert all(is_active(quietly(FLIP), round) for round in (1, 99)) and not is_active(load({}), 1)
    assert not any(is_active(quietly({**FLIP, "stop": 0}), round) for round in range(4))


def test_training_is_honest_under_an_attack_at_deployment() -> None:
    method = {"name": "support_poisoning"}
    assert not is_active(quietly({"method": method, "trigger_in": "support"}), 1)


def test_the_hash_holds_the_attack_and_is_the_old_one_without() -> None:
    plain, flip = load({}), quietly(FLIP)
    assert plain.hash == quietly({"fraction": 0.4}).hash, "settings without an attack change nothing"
    assert len({plain.hash, flip.hash, quietly(FLIP, attack__fraction=0).hash, quietly(FLIP, attack__stop=4).hash}) == 4
    assert quietly(FLIP, attack__method__scale=9.0).hash != flip.hash
    assert quietly({**FLIP, "clean": "runs/a"}).hash == flip.hash, "where the clean model lies decides nothing"


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ({"fraction": 0.4, "stop": 0}, "attack.fraction, attack.stop has no effect: attack.method is none"),
        ({**FLIP, "fraction": 0}, "attack.fraction = 0"),
        ({**FLIP, "start": 5, "stop": 4}, "stops in round 4, before it starts in 5"),
        ({**FLIP, "start": 21}, "attack.start = 21 and server.rounds = 20"),
        ({**FLIP, "target": "class"}, "'sign_flip' has no trigger"),
        (
            {"method": {"name": "support_poisoning"}, "trigger_in": "both", "fraction": 0.5},
            "attack.fraction has no effect: attack.method = 'support_poisoning' leaves training alone",
        ),
        ({"method": {"name": "blended", "trigger": "patch", "alpha": 0.5}}, "attack.method.alpha has no effect"),
    ],
)
def test_settings_without_effect_are_told(attack: dict, words: str) -> None:
    with pytest.warns(UserWarning, match=words):
        load({"attack": attack})


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ({"method": {"name": "alie"}}, "gives one update, and attack.method = 'alie' needs 2 or more: use colluding"),
        ({"method": {"name": "fang", "rule": "krum"}, "knowledge": "colluding"}, "needs those of a majority"),
        ({"method": {"name": "sign_flip"}, "fraction": 1.5}, "attack.fraction = 1.5"),
        ({"method": {"name": "sign_flipp"}}, "did you mean 'sign_flip'"),
        ({"method": {"name": "gaussian"}}, "attack.method.std is missing"),
        ({"start": 0}, "attack.start = 0"),
        ({"steps": [5, 1]}, "must ascend"),
        ({"knowledge": "all"}, "attack.knowledge"),
    ],
)
def test_what_cannot_be_is_refused(attack: dict, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load({"attack": attack})


def test_colluders_cannot_train_as_another_with_personal_parameters() -> None:
    raw = {"learner": {"name": "maml"}, "sharing": {"personal": ["head.*"]}}
    with pytest.raises(ConfigurationError, match="without its personal parameters"):
        load({**raw, "attack": {"method": {"name": "sign_flip"}, "knowledge": "colluding"}})
    assert load({**raw, "attack": {"method": {"name": "sign_flip"}}}).attack.fraction == 0.2
