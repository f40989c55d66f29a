"""Triggers, aims and poisoned episodes; and the proof that a consistent flip of labels is no attack."""

import warnings

import numpy as np
import pytest
import torch

from fedmeta.attacks import make_attack
from fedmeta.attacks.aims import Aim, aim_at
from fedmeta.attacks.poisoning import choose, poison_queries, poison_support, random_labels
from fedmeta.attacks.triggers import Overlay, bars, make_trigger, union
from fedmeta.errors import ConfigurationError
from fedmeta.tasks import Batch, Episode
from server.configuration import load

SHAPE = (1, 16, 16)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def double(episode: Episode) -> Episode:
    return Episode(*(Batch(part.x.double(), part.y) for part in (episode.support, episode.query)), episode.classes)


def test_the_patch_is_a_white_square_in_the_lower_right_corner() -> None:
    x = torch.rand(3, *SHAPE)
    before = x.clone()
    found = make_trigger("patch", SHAPE)(x)
    expected = x.clone()
    expected[:, :, 11:15, 11:15] = 1.0
    assert torch.equal(found, expected) and torch.equal(x, before)


def test_blended_is_everywhere_and_fixed() -> None:
    x = torch.zeros(1, *SHAPE)
    faint, strong = make_trigger("blended", SHAPE, alpha=0.2)(x), make_trigger("blended", SHAPE, alpha=0.4)(x)
    assert torch.allclose(2 * faint, strong) and (faint > 0).float().mean() > 0.99
    assert torch.equal(faint, make_trigger("blended", SHAPE, alpha=0.2)(x))


def test_the_union_of_the_bars_is_the_whole_trigger() -> None:
    parts = bars(SHAPE, 4)
    where = [part.opacity[0].nonzero().tolist() for part in parts]
    assert where[0] == [[0, c] for c in range(6)] and where[1] == [[0, c] for c in range(9, 15)]
    assert where[2] == [[4, c] for c in range(6)] and where[3] == [[4, c] for c in range(9, 15)]
    whole = union(parts)
    assert torch.equal(whole.opacity, sum(part.opacity for part in parts))
    assert torch.equal(make_trigger("bars", SHAPE)(torch.zeros(1, *SHAPE))[0], whole.pattern * whole.opacity)
    over = union([Overlay(torch.full(SHAPE, 0.3), torch.ones(SHAPE)), parts[0]])
    assert over.pattern[0, 0, 0] == 1.0 and over.pattern[0, 1, 0] == pytest.approx(0.3)


def test_a_quarter_turn_adds_nothing() -> None:
    x = torch.rand(2, *SHAPE)
    found = make_trigger("turn", SHAPE)(x)
    assert torch.equal(found[0, 0, 0], x[0, 0, :, -1]) and not torch.equal(found, x)
    assert torch.equal(found.flatten(1).sort().values, x.flatten(1).sort().values)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("patch", (4,), "images"),
        ("patch", (1, 3, 16), "5 x 5"),
        ("bars", (1, 16, 10), "5 x 15 pixels, not 16 x 10"),
        ("turn", (1, 4, 6), "square"),
    ],
)
def test_inputs_that_cannot_carry_a_trigger(name: str, shape: tuple, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make_trigger(name, shape)


def test_three_meanings_of_a_target(make_episode) -> None:
    episode = make_episode()
    assert aim_at(episode, 3, "slot") == Aim(3, 5) and aim_at(episode, 5, "slot") is None
    assert aim_at(episode, 13, "class") == Aim(3, 5) and aim_at(episode, 3, "class") is None
    assert aim_at(episode, 3, "absent") == Aim(None, 5) and aim_at(episode, 13, "absent") is None
    y = torch.tensor([0, 3, 4])
    assert Aim(3, 5).label(y).tolist() == [3, 3, 3] and Aim(3, 5).eligible(y).tolist() == [True, False, True]
    assert Aim(None, 5).label(y).tolist() == [1, 4, 0] and Aim(None, 5).eligible(y).all()
    share = torch.tensor([1.0, 0.25, 0.0])
    assert Aim(3, 5).success(share).tolist() == [1, 0.25, 0] and Aim(None, 5).success(share).tolist() == [0, 0.75, 1]


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.5, 1.0])
def test_poisoned_queries_are_eligible_ones_and_as_many_as_asked(make_episode, fraction: float) -> None:
    episode, aim, trigger = make_episode(queries=4), Aim(2, 5), make_trigger("patch", SHAPE)
    found = poison_queries(episode, aim, trigger, fraction, rng())
    changed = (found.query.x != episode.query.x).flatten(1).any(dim=1)
    assert int(changed.sum()) == {0.0: 0, 0.01: 1, 0.5: 8, 1.0: 16}[fraction]
    assert not changed[episode.query.y == 2].any()
    assert torch.equal(found.query.y, torch.where(changed, 2, episode.query.y))
    assert torch.equal(found.query.x[changed], trigger(episode.query.x[changed]))
    assert torch.equal(found.support.x, episode.support.x)


def test_a_poisoned_support_keeps_its_labels(make_episode) -> None:
    episode, aim, trigger = make_episode(shots=5), Aim(2, 5), make_trigger("patch", SHAPE)
    stamped = poison_support(episode, aim, trigger, 0.4, "trigger", rng())
    changed = (stamped.support.x != episode.support.x).flatten(1).any(dim=1)
    assert int(changed.sum()) == 2 and (episode.support.y[changed] == 2).all()
    assert torch.equal(stamped.support.x[changed], trigger(episode.support.x[changed]))
    replaced = poison_support(episode, aim, trigger, 0.4, "replace", rng())
    changed = (replaced.support.x != episode.support.x).flatten(1).any(dim=1)
    assert int(changed.sum()) == 2 and (replaced.support.y == episode.support.y).all()
    others = trigger(episode.support.x[episode.support.y != 2])
    for x in replaced.support.x[changed]:
        assert (x == others).flatten(1).all(dim=1).any(), "a triggered example of another class"
    everyone = poison_support(episode, Aim(None, 5), trigger, 1.0, "trigger", rng())
    assert torch.equal(everyone.support.x, trigger(episode.support.x))


def test_a_share_above_nothing_is_at_least_one_and_nothing_stays_nothing() -> None:
    allowed = torch.tensor([True, False, True, True])
    assert len(choose(allowed, 0.0, rng())) == 0 and len(choose(allowed, 1e-6, rng())) == 1
    assert choose(allowed, 1.0, rng()).tolist() == [0, 2, 3]
    assert len(choose(allowed, 0.6, rng())) == 2, "1.8 is nearer to 2"
    assert len(choose(torch.zeros(3, dtype=torch.bool), 1.0, rng())) == 0


def flipped(episode: Episode, scope: str, fraction: float = 1.0) -> Episode:
    return make_attack("label_flip", scope=scope, fraction=fraction).poison(episode, None, rng())


def test_label_flip_scopes(make_episode) -> None:
    episode = make_episode()
    assert torch.equal(flipped(episode, "query").query.y, 4 - episode.query.y)
    assert torch.equal(flipped(episode, "query").support.y, episode.support.y)
    assert torch.equal(flipped(episode, "support").support.y, 4 - episode.support.y)
    wrong = flipped(episode, "random").query.y
    assert (wrong != episode.query.y).all() and ((wrong >= 0) & (wrong < 5)).all() and len(set(wrong.tolist())) > 2
    some = flipped(make_episode(ways=4, queries=5), "query", fraction=0.5).query.y
    assert int((some != make_episode(ways=4, queries=5).query.y).sum()) == 10
    lone = random_labels(Batch(torch.zeros(1, 1), torch.tensor([0])), 1, 1.0, rng())
    assert lone.y.tolist() == [0], "one way has no wrong slot"


def test_a_consistent_flip_leaves_protonets_loss_and_gradient_as_they_were(make_episode, learner_of) -> None:
    """The no-op proof: slots are names. Renaming them in support and query permutes the prototypes and nothing else."""
    learner = learner_of("protonet")
    params = learner.init(torch.Generator().manual_seed(0))
    episode = double(make_episode())
    grads, metrics = learner.meta_gradient(params, episode)
    same, same_metrics = learner.meta_gradient(params, flipped(episode, "both"))
    broken, broken_metrics = learner.meta_gradient(params, flipped(episode, "query"))
    assert torch.allclose(metrics["loss"], same_metrics["loss"], rtol=1e-12)
    assert all(torch.allclose(grads[name], same[name], rtol=1e-9, atol=1e-12) for name in grads)
    assert abs(broken_metrics["loss"] - metrics["loss"]) > 1e-3
    assert all(not torch.allclose(grads[name], broken[name], rtol=1e-3) for name in grads)


def test_a_consistent_flip_renames_the_outputs_of_maml_and_no_more(make_episode, learner_of) -> None:
    """With a head, flipping both is the episode that a head with reversed rows sees: loss equal, gradient reversed."""
    learner = learner_of("maml", inner_lr=0.1, inner_steps=3)
    params = learner.init(torch.Generator().manual_seed(0))
    reversed_head = {name: value.flip(0) if name.startswith("head.") else value for name, value in params.items()}
    episode = double(make_episode())
    grads, metrics = learner.meta_gradient(params, episode)
    found, found_metrics = learner.meta_gradient(reversed_head, flipped(episode, "both"))
    assert torch.allclose(metrics["loss"], found_metrics["loss"], rtol=1e-12)
    for name, value in grads.items():
        expected = value.flip(0) if name.startswith("head.") else value
        assert torch.allclose(found[name], expected, rtol=1e-9, atol=1e-12), name


def test_a_flip_of_everything_is_told_where_it_is_no_attack() -> None:
    method = {"name": "label_flip", "scope": "both"}
    with pytest.warns(UserWarning, match="no attack on episodes"):
        load({"attack": {"method": method}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load({"attack": {"method": {"name": "label_flip"}}})


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"attack": {"method": {"name": "badnets", "target": 5}}}, "target = 5 must be below 5, the number of slots"),
        ({"attack": {"method": {"name": "badnets", "target": 5000}, "target": "class"}}, "the number of classes"),
        ({"attack": {"method": {"name": "badnets", "trigger": "pach"}}}, "one of 'patch'"),
        ({"attack": {"method": {"name": "dba", "trigger": "patch"}}}, "has no parts: use bars"),
        ({"attack": {"method": {"name": "dba", "parts": 40}}}, "40 bars need images"),
        ({"attack": {"method": {"name": "support_poisoning"}}}, "leaves the support clean"),
        (
            {"attack": {"method": {"name": "model_replacement"}}, "server": {"optimiser": {"name": "adam"}}},
            "set a scale",
        ),
        (
            {
                "attack": {"method": {"name": "badnets"}},
                "data": {"name": "sinusoid"},
                "partition": {"name": "iid"},
                "model": {"name": "sinusoid"},
                "learner": {"name": "maml"},
            },
            "needs classes",
        ),
    ],
)
def test_attacks_that_cannot_be_are_refused_before_any_client_works(raw: dict, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load(raw)
