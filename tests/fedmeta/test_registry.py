"""Registries, parameters and seeds: names, bounds, plug-ins of other packages, independent generators."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from fedmeta.errors import ConfigurationError
from fedmeta.learners import LEARNERS, make_learner
from fedmeta.models import make_model
from fedmeta.parameters import check_parameters, parameter, parameters_of
from fedmeta.registry import Entry, Registry
from fedmeta.seeding import derive, numpy_generator, torch_generator
from simulations.console import registries

PLUGIN = """
from dataclasses import dataclass
from fedmeta.learners.maml import FOMAML
from fedmeta.parameters import parameter

@dataclass(frozen=True)
class SignMAML(FOMAML):
    size: float = parameter(1.0, gt=0, doc="magnitude of every coordinate")

    def meta_gradient(self, params, episode):
        grads, metrics = super().meta_gradient(params, episode)
        return {name: self.size * value.sign() for name, value in grads.items()}, metrics
"""


def test_every_entry_can_be_loaded_and_says_what_it_is() -> None:
    for registry in registries().values():
        for name, entry in registry.entries().items():
            assert registry.get(name).__doc__ and entry.summary, (registry.kind, name)
            assert all(item.bounds.doc for item in parameters_of(registry.get(name)).values())


def test_another_packages_learner_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sign_plugin.py").write_text(PLUGIN)
    metadata = tmp_path / "sign_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sign-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[fedmeta.learners]\nsign_maml = sign_plugin:SignMAML\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(LEARNERS, "_all", None)
    assert "sign-plugin" in LEARNERS.entries()["sign_maml"].summary
    learner = make_learner("sign_maml", make_model("sinusoid"), task="regression", size=0.5)
    assert learner.size == 0.5 and type(learner).__module__ == "sign_plugin"
    monkeypatch.setattr(LEARNERS, "_all", None)
    sys.modules.pop("sign_plugin")


def test_a_plugin_that_cannot_be_loaded_is_named() -> None:
    broken = Registry("learners", {"broken": Entry("no_such_module:X", "")})
    with pytest.raises(ConfigurationError, match=r"learner 'broken' cannot be loaded from no_such_module:X"):
        broken.get("broken")
    with pytest.raises(ConfigurationError, match="is already"):
        broken.register("broken", "other:Y", "")


@pytest.mark.parametrize("registry", registries().values(), ids=lambda registry: registry.kind)
def test_errors_use_the_names_of_configurations(registry: Registry) -> None:
    for name in registry.entries():
        made = object.__new__(registry.get(name))
        assert name in registry.name_of(made).split(" or ")
    assert registry.name_of(Sample(rate=1)) == "Sample", "what is not registered has no such name"


def test_a_foreign_parameter_is_told_with_the_name_that_was_chosen() -> None:
    with pytest.raises(
        ConfigurationError, match=r"partition\.writer is not a parameter of partition 'alphabet_writer'"
    ):
        registries()["partitions"].check("alphabet_writer", {"writer": 3})


@dataclass(frozen=True)
class Sample:
    """A plug-in with every type of parameter."""

    rate: float = parameter(doc="needed", gt=0, le=1)
    count: int = parameter(3, doc="whole", ge=0)
    mode: Literal["a", "b"] = parameter("a", doc="one of two")
    sizes: tuple[int, ...] = parameter((1, 2), doc="several", ge=1)
    limit: float | None = parameter(None, doc="perhaps none", ge=0)
    flag: bool = parameter(False, doc="a switch")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "s.rate is missing"),
        ({"rate": 0}, "s.rate = 0 must be > 0, <= 1"),
        ({"rate": float("nan")}, "s.rate = nan"),
        ({"rate": "1"}, "not a number"),
        ({"rate": True}, "not a number"),
        ({"rate": 1, "count": 1.5}, "not a whole number"),
        ({"rate": 1, "count": True}, "not a whole number"),
        ({"rate": 1, "mode": "c"}, "one of 'a', 'b'"),
        ({"rate": 1, "sizes": [0]}, "must be >= 1"),
        ({"rate": 1, "sizes": 4}, "not a list"),
        ({"rate": 1, "flag": 1}, "not true or false"),
        ({"rate": 1, "limits": 2}, "did you mean 'limit'"),
    ],
)
def test_parameters_are_checked(given: dict, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_parameters(Sample, given, "s")
    assert words in str(caught.value)


def test_parameters_take_their_declared_types() -> None:
    found = check_parameters(Sample, {"rate": 1, "sizes": [4, 5], "limit": 0}, "s")
    assert found == {"rate": 1.0, "count": 3, "mode": "a", "sizes": (4, 5), "limit": 0.0, "flag": False}
    assert isinstance(found["rate"], float) and isinstance(found["limit"], float)


def test_generators_repeat_and_do_not_meet() -> None:
    draws = {
        (seed, round, client, purpose): numpy_generator(seed, round, client, purpose).random()
        for seed in (0, 1)
        for round in (0, 1, 11)
        for client in (-1, 0, 1)
        for purpose in ("a", "b")
    }
    assert len(set(draws.values())) == len(draws)
    assert numpy_generator(0, 1, -1, "a").random() == draws[0, 1, -1, "a"]
    assert torch_generator(0, 1, 2, "x").initial_seed() == derive(0, 1, 2, "x") % 2**63
    state = np.random.get_state()[1].copy()
    numpy_generator(0, 0, 0, "z").random(100)
    assert (np.random.get_state()[1] == state).all(), "the global generator is never touched"
