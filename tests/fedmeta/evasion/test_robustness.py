"""The figures: how attacks are joined, what is refused before anything is computed, and an independent package."""

import dataclasses

import pytest
import torch

from fedmeta.errors import ConfigurationError
from fedmeta.evasion.plan import Plan, attacks_of, settings_of
from fedmeta.evasion.robustness import _worst, attack_episode, robustness
from fedmeta.tasks import Batch


def test_the_worst_is_by_query_or_by_support() -> None:
    one, other = [torch.tensor([1.0, 0.0, 1.0, 1.0])], [torch.tensor([0.0, 1.0, 1.0, 1.0])]
    assert _worst([one, other], together=False)[0].tolist() == [0, 0, 1, 1], "a query is moved by itself"
    assert float(_worst([one, other], together=True)[0].mean()) == 0.75, "one support has one perturbation"


def test_the_same_run_gives_the_same_figures(protonet) -> None:
    plan = Plan(eps=(0.03, 0.1), attacks=attacks_of(["pgd", "square"], {"square": {"queries": 20}}))
    few = protonet.episodes[:4]
    first, again = (robustness(protonet.learner, protonet.params, few, plan) for _ in range(2))
    assert [f.accuracy for f in first.figures] == [f.accuracy for f in again.figures]
    looped = robustness(protonet.learner, protonet.params, few, plan, execution="loop")
    for one, other in zip(first.figures, looped.figures, strict=True):
        assert one.accuracy.mean == pytest.approx(other.accuracy.mean, abs=0.02), "to rounding"
    assert first.clean.count == 4 and first.clean.unit == "episodes" and first.clean.low <= first.clean.mean
    unequal = [few[0], few[1]._replace(query=Batch(few[1].query.x[:10], few[1].query.y[:10]))]
    assert robustness(protonet.learner, protonet.params, unequal, plan).clean.count == 2, "looped"


def test_what_a_plan_cannot_be() -> None:
    pgd = attacks_of(["pgd"])
    for wrong, words in (
        ({"eps": (-0.1,)}, "eps = -0.1 is no radius"),
        ({"eps": (0.1, 1.5)}, "eps = 1.5 is above 1"),
        ({"eps": ()}, "one or more radii that ascend"),
        ({"eps": (0.2, 0.1)}, "one or more radii that ascend"),
        ({"attacks": {}}, "no attack to try"),
        ({"on": "querry"}, "did you mean 'query'"),
        ({"norm": "l1"}, "unknown norm 'l1'"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            Plan(**{"attacks": pgd, **wrong})
    with pytest.raises(ConfigurationError, match="parameters for 'fgsm', which is not among the attacks pgd"):
        attacks_of(["pgd"], {"fgsm": {}})
    assert list(attacks_of(["apgd", "pgd", "apgd_ce"])) == ["apgd_ce", "apgd_dlr", "pgd"]
    assert settings_of(attacks_of(["square"])["square"]) == {"queries": 300, "share": 0.8, "black_box": True}


def test_what_episodes_cannot_be(protonet) -> None:
    learner, params, episode = protonet.learner, protonet.params, protonet.episodes[0]
    pair = episode._replace(
        support=Batch(episode.support.x[:2], episode.support.y[:2]),
        query=Batch(episode.query.x[:2], episode.query.y[:2]),
        classes=episode.classes[:2],
    )
    with pytest.raises(ConfigurationError, match="2 classes are too few: evasion 'apgd_dlr'"):
        robustness(learner, params, [pair], Plan(attacks=attacks_of(["apgd"])))
    assert robustness(learner, params, [pair], Plan(attacks=attacks_of(["fgsm"]))).clean.count == 1
    negative = episode._replace(query=Batch(2 * episode.query.x - 1, episode.query.y))
    with pytest.raises(ConfigurationError, match=r"inputs lie in \[-1, 1\]"):
        robustness(learner, params, [negative], Plan(attacks=attacks_of(["fgsm"])))
    with pytest.raises(ConfigurationError, match="'square' is the Linf form"):
        robustness(learner, params, [episode], Plan(norm="l2", attacks=attacks_of(["square"])))
    with pytest.raises(ConfigurationError, match="no episode"):
        robustness(learner, params, [], Plan(attacks=attacks_of(["fgsm"])))


def test_torchattacks_finds_as_much(protonet) -> None:
    """PGD and APGD within two points of an independent package on the same queries.

    It pins a version of `requests` that Flower refuses, so that no extra can name it.
    """
    torchattacks = pytest.importorskip("torchattacks", reason="pip install --no-deps torchattacks tqdm")
    plan = Plan(
        eps=(0.03,),
        attacks=attacks_of(["pgd", "apgd"], {"apgd_ce": {"steps": 20}, "apgd_dlr": {"steps": 20}}),
    )
    theirs = {
        "pgd": lambda model: torchattacks.PGD(model, eps=0.03, alpha=0.03 / 8, steps=20),
        "apgd_ce": lambda model: torchattacks.APGD(model, norm="Linf", eps=0.03, steps=20, loss="ce"),
        "apgd_dlr": lambda model: torchattacks.APGD(model, norm="Linf", eps=0.03, steps=20, loss="dlr"),
    }
    learner, params = protonet.learner, protonet.params
    right: dict[str, list[torch.Tensor]] = {name: [] for name in theirs}
    for episode in protonet.episodes:
        model = Adapted(learner, learner.adapt(params, episode.support, 5)).eval()
        for name, make in theirs.items():
            moved = make(model)(episode.query.x, episode.query.y)
            right[name].append((model(moved).argmax(1) == episode.query.y).double())
    for name, evasion in plan.attacks.items():
        own = []
        for episode in protonet.episodes:
            found = attack_episode(learner, params, episode, evasion, plan.ball(0.03), plan)
            own.append((found.answers == episode.query.y).double())
        ours, others = (torch.cat(each).mean().item() for each in (own, right[name]))
        print(f"{name}: {100 * ours:.1f} % right, torchattacks {100 * others:.1f} %")
        assert ours == pytest.approx(others, abs=0.02), name


class Adapted(torch.nn.Module):
    """An adapted model as torchattacks takes it."""

    def __init__(self, learner, adapted) -> None:
        super().__init__()
        self.learner, self.adapted = learner, adapted
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # tells the package which device it is on

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.learner.predict(self.adapted, x)


def test_a_plan_is_written_down_whole() -> None:
    plan = Plan(attacks=attacks_of(["pgd"], {"pgd": {"restarts": 2}}), on="both", seed=3)
    told = plan.to_json()
    assert told["attacks"]["pgd"] == {
        "steps": 20,
        "step": 0.125,
        "restarts": 2,
        "random_start": True,
        "targets": 0,
        "black_box": False,
    }
    assert set(told) == {field.name for field in dataclasses.fields(plan)} - {"steps"}
