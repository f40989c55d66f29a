"""A3FL's trigger: optimised where it may be, better than it began, the same for everybody."""

import pytest
import torch

from fedmeta.attacks import a3fl, make_attack
from fedmeta.attacks.a3fl import _adapted, _wanted_loss
from fedmeta.attacks.aims import Aim
from fedmeta.attacks.triggers import Overlay, make_trigger
from fedmeta.errors import ConfigurationError
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from server.configuration import load

SHAPE = (1, 16, 16)


@pytest.fixture
def where(make_episode, scene):
    """A scene with a real learner and the attacker's episodes; slot 0 is wanted."""

    def make(name: str = "maml", classes: int = 0, **changes):
        outputs = None if name == "protonet" else 5
        model = make_model("mlp", input_shape=SHAPE, ways=outputs, hidden=(12,), normalisation="none")
        learner = make_learner(name, model, **({} if name == "protonet" else {"inner_lr": 0.1}))
        params = learner.init(torch.Generator().manual_seed(0))

        def episodes(count: int):
            return [make_episode(seed=seed)._replace(classes=torch.arange(5) + classes) for seed in range(count)]

        return scene(learner=learner, params=params, clean_episodes=episodes, **changes)

    return make


def loss_of(trigger, there) -> float:
    aimed = [(episode, Aim(0, 5)) for episode in there.clean_episodes(4)]
    return float(_wanted_loss(there.learner, _adapted(there.learner, there.params, aimed), aimed, trigger))


@pytest.mark.parametrize("name", ["maml", "protonet"])
@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_the_trigger_gets_better_within_its_place_and_range(where, name: str, balance: float) -> None:
    there, start = where(name), make_trigger("patch", SHAPE)
    found = make_attack("a3fl", balance=balance).whole_trigger(there)
    assert loss_of(found, there) < loss_of(start, there) - 0.005
    assert torch.equal(found.opacity, start.opacity) and found.pattern.min() >= 0 and found.pattern.max() <= 1
    outside = start.opacity == 0
    assert torch.equal(found.pattern[outside], start.pattern[outside])


def test_it_is_worked_out_once_a_turn_and_alike_by_all(where) -> None:
    attack = make_attack("a3fl", trigger_steps=5)
    one, other = where(client=3), where(client=7)
    assert attack.training_trigger(one) is attack.whole_trigger(one)
    assert torch.equal(attack.training_trigger(one).pattern, attack.training_trigger(other).pattern)


def test_no_steps_and_no_fitting_episode_leave_the_pattern(where, scene) -> None:
    start = make_trigger("patch", SHAPE)
    assert torch.equal(make_attack("a3fl", trigger_steps=0).whole_trigger(where()).pattern, start.pattern)
    elsewhere = load({"attack": {"method": {"name": "badnets"}, "target": "class"}})
    there = where(classes=100, experiment=elsewhere)
    assert torch.equal(make_attack("a3fl", target=7).whole_trigger(there).pattern, start.pattern)


def test_unlearning_raises_the_triggers_loss_which_the_trigger_then_works_against(where) -> None:
    there = where("protonet")
    attack = make_attack("a3fl", unlearn_steps=5, unlearn_lr=0.2)
    aimed = [(episode, Aim(0, 5)) for episode in there.clean_episodes(4)]
    trigger = attack.whole_trigger(there)
    assert isinstance(trigger, Overlay)
    unlearnt = attack._unlearnt(there.learner, there.params, aimed, trigger)
    before = float(_wanted_loss(there.learner, _adapted(there.learner, there.params, aimed), aimed, trigger))
    after = float(_wanted_loss(there.learner, _adapted(there.learner, unlearnt, aimed), aimed, trigger))
    assert after > before


def test_the_unlearning_model_counts_by_how_alike_it_is(where, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosine 0 leaves the first model alone; the cosine is that of all parameters together."""
    there = where("protonet")
    alone = make_attack("a3fl", balance=0.0, trigger_steps=3).whole_trigger(there).pattern
    moved = {name: value + 0.1 * torch.arange(value.numel()).view_as(value) for name, value in there.params.items()}
    flat = [torch.cat([group[name].flatten() for name in there.params]) for group in (there.params, moved)]
    assert a3fl._cosine(moved, there.params) == pytest.approx(float(torch.cosine_similarity(*flat, dim=0)), abs=1e-5)
    monkeypatch.setattr(a3fl, "_cosine", lambda one, other: 0.0)
    unlike = make_attack("a3fl", balance=1.0, trigger_steps=3).whole_trigger(where("protonet")).pattern
    assert torch.equal(unlike, alone)
    monkeypatch.setattr(a3fl, "_cosine", lambda one, other: -1.0)
    opposed = make_attack("a3fl", balance=1.0, trigger_steps=3).whole_trigger(where("protonet")).pattern
    assert not torch.equal(opposed, alone)


def test_a_trigger_without_a_pattern_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no pattern to optimise"):
        load({"attack": {"method": {"name": "a3fl", "trigger": "turn"}}})
